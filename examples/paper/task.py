"""The run's network as a LightningModule: its loss, its optimizer, its learning rate's schedule."""

from __future__ import annotations

from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn

from paper.settings import Settings

Batch = tuple[Tensor, Tensor]


class Training(LightningModule):
    """Trains ``network`` as ``settings`` say; logs loss and accuracy, where there is one, every epoch."""

    def __init__(self, network: nn.Module, settings: Settings) -> None:
        super().__init__()
        self.network = network
        self.settings = settings

    def forward(self, inputs: Tensor) -> Tensor:
        return self.network(inputs)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self._step(batch, "train")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._step(batch, "val")

    def configure_optimizers(self) -> Any:
        run = self.settings
        decay = {"lr": run.learning_rate, "weight_decay": run.weight_decay}
        optimizer = {
            "adam": lambda: torch.optim.Adam(self.parameters(), **decay),
            "sgd": lambda: torch.optim.SGD(self.parameters(), momentum=0.9, **decay),
        }[run.optimizer]()
        if run.schedule == "constant":
            return optimizer
        if run.schedule == "step":
            drop = max(1, round(0.6 * run.epochs))
            return [optimizer], [torch.optim.lr_scheduler.MultiStepLR(optimizer, [drop], gamma=0.1)]
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, run.epochs)]

    def _step(self, batch: Batch, stage: str) -> Tensor:
        loss, accuracy = score(self.network, batch, self.settings)
        options = {"on_step": False, "on_epoch": True, "batch_size": len(batch[0])}
        self.log(f"{stage}/loss", loss, **options)
        if accuracy is not None:
            self.log(f"{stage}/accuracy", accuracy, **options)
        return loss


def score(network: nn.Module, batch: Batch, settings: Settings) -> tuple[Tensor, Tensor | None]:
    """Return the mean loss over ``batch`` and the share of labels found; None where the input itself is the label."""
    inputs, labels = batch
    output = network(inputs)
    if settings.task == "reconstruct":
        return nn.functional.mse_loss(output, inputs), None
    output, labels = output.flatten(0, -2), labels.flatten()
    return nn.functional.cross_entropy(output, labels), (output.argmax(-1) == labels).float().mean()


@torch.no_grad()
def scores(network: nn.Module, batches: Any, settings: Settings) -> dict[str, float]:
    """Return loss and accuracy of ``network``, in evaluation mode, over all ``batches``."""
    network.eval()
    totals: dict[str, float] = {}
    count = 0
    for batch in batches:
        loss, accuracy = score(network, batch, settings)
        count += len(batch[0])
        for name, value in (("loss", loss), ("accuracy", accuracy)):
            if value is not None:
                totals[name] = totals.get(name, 0.0) + float(value) * len(batch[0])
    return {name: round(total / count, 6) for name, total in totals.items()}
