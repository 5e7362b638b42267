"""Sweep a network that is not ours: vision transformers of `transformers` on scikit-learn's digits."""

import torch
from lightning import LightningModule
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset, random_split
from transformers import ViTConfig, ViTForImageClassification

from lightning_saturation import sweep

DIGITS = {"image_size": 8, "patch_size": 2, "num_channels": 1, "num_labels": 10, "num_attention_heads": 4}


class Module(LightningModule):
    def __init__(self, **config):
        super().__init__()
        self.model = ViTForImageClassification(ViTConfig(**DIGITS, **config))

    def training_step(self, batch, _):
        return self.model(batch[0], labels=batch[1]).loss

    def validation_step(self, batch, _):
        self.log("val/accuracy", (self.model(batch[0]).logits.argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 2e-3)


def trial(config):
    images, labels = (torch.from_numpy(part) for part in load_digits(return_X_y=True))
    train, test = random_split(TensorDataset(images.float().view(-1, 1, 8, 8) / 16, labels), [0.8, 0.2])
    return Module(**config), (DataLoader(train, 64, shuffle=True), DataLoader(test, 360))


if __name__ == "__main__":
    grid = {"hidden_size": [16, 32, 64], "num_hidden_layers": [2, 4], "intermediate_size": [64]}
    print(sweep(trial, grid, out="results", metric="val/accuracy", trainer={"max_epochs": 40}))
