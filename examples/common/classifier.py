"""A classifier as a LightningModule."""

from __future__ import annotations

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy


class Classifier(LightningModule):
    """Cross-entropy with Adam (the optimizer of Shenk et al., section 3.1); logs loss and accuracy every epoch.

    ``augment`` crops at random after 4 pixels of padding and flips half of the training images, as the paper does;
    ``anneal`` takes the learning rate down to 0 over all epochs, along a cosine.
    """

    def __init__(
        self,
        network: nn.Module,
        classes: int,
        *,
        learning_rate: float = 1e-3,
        augment: bool = False,
        anneal: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        self.learning_rate = learning_rate
        self.augment = augment
        self.anneal = anneal
        accuracy = MulticlassAccuracy(num_classes=classes, average="micro")
        self.accuracies = nn.ModuleDict({stage: accuracy.clone() for stage in ("train_", "val_", "test_")})

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        return self._step((_augmented(images) if self.augment else images, labels), "train")

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._step(batch, "val")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._step(batch, "test")

    def configure_optimizers(self) -> tuple[list, list]:
        optimizer = torch.optim.Adam(self.parameters(), lr=self.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR
        return [optimizer], [schedule(optimizer, self.trainer.max_epochs)] if self.anneal else []

    def _step(self, batch: tuple[Tensor, Tensor], stage: str) -> Tensor:
        images, labels = batch
        logits = self(images)
        loss = nn.functional.cross_entropy(logits, labels)
        accuracy = self.accuracies[f"{stage}_"]
        accuracy(logits, labels)
        options = {"on_step": False, "on_epoch": True, "batch_size": len(labels)}
        self.log(f"{stage}/loss", loss, sync_dist=True, **options)
        self.log(f"{stage}/accuracy", accuracy, prog_bar=stage == "val", **options)
        return loss


def _augmented(images: Tensor) -> Tensor:
    """Return each image shifted by up to 4 pixels over zeros, half of them mirrored: one gather per direction."""
    count, side = len(images), images.shape[-1]
    steps = torch.arange(side, device=images.device)
    rows, columns = (torch.randint(0, 9, (count, 1), device=images.device) + steps for _ in range(2))
    mirrored = torch.rand(count, 1, device=images.device) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    padded = nn.functional.pad(images, (4, 4, 4, 4))
    return padded.take_along_dim(rows[:, None, :, None], dim=2).take_along_dim(columns[:, None, None, :], dim=3)
