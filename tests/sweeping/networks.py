"""A trial as a user writes it: a network that is not ours, in a module that worker processes can import."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Small(LightningModule):
    """Two layers on a made-up task of two classes."""

    def __init__(self, width: int = 8, rate: float = 0.1) -> None:
        super().__init__()
        self.rate = rate
        self.body = nn.Sequential(
            nn.Linear(6, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2)
        )

    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.cross_entropy(self.body(x), y)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val/accuracy", (self.body(x).argmax(1) == y).float().mean())
        self.log("val/loss", nn.functional.cross_entropy(self.body(x), y))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.rate)

    def train_dataloader(self):
        return loader(0)

    def val_dataloader(self):
        return loader(1)


def loader(seed: int) -> DataLoader:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(64, 6, generator=generator)
    return DataLoader(TensorDataset(inputs, (inputs[:, 0] > 0).long()), batch_size=16)


def trial(config):
    if config["width"] == 13:
        raise RuntimeError("thirteen does not work")
    return Small(**config), (loader(0), loader(1))


def noted(config):
    """Note each start in the file ``starts``, and take a ``moment``, in seconds."""
    with Path(config.pop("starts")).open("a") as file:
        file.write(f"{config['width']}\n")
    time.sleep(config.pop("moment", 0.0))
    return trial(config)
