"""A small real training whose module logs a loss of its own."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

BATCHES = 4


class Net(LightningModule):
    """Three linear layers; ``loss`` and ``val_loss`` are logged once an epoch if ``logs``."""

    def __init__(self, *, logs: bool = True) -> None:
        super().__init__()
        self.logs = logs
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3))

    def training_step(self, batch: list[Tensor]) -> Tensor:
        loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        if self.logs:
            self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: list[Tensor]) -> None:
        loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        if self.logs:
            self.log("val_loss", loss)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Ignore what Lightning says about small machines and small data, and nothing else."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", ".*The number of training batches.*")
        warnings.filterwarnings("ignore", ".*`isinstance.treespec, LeafSpec.` is deprecated.*")
        yield


def train(callbacks: list[Any], logger: Any, *, epochs: int = 3, module: Net | None = None, **options: Any) -> Trainer:
    """Return the Trainer after ``fit``, which ran in silence on one CPU."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(BATCHES * 8, 8, generator=generator)
    loader = DataLoader(TensorDataset(rows, torch.randint(0, 3, (len(rows),), generator=generator)), batch_size=8)
    with quiet_lightning():
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
        trainer = Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            logger=logger,
            callbacks=callbacks,
            **{"devices": 1, **quiet, **options},
        )
        trainer.fit(module or Net(), loader, loader)
    return trainer
