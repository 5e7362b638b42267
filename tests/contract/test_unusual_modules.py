"""Promise 9: modules need no ``forward``, may take several inputs, and batches may hold labels by name."""

from __future__ import annotations

import math

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tests.contract.callbacks import CALLBACKS, WATCHING, history
from tests.contract.loaders import Named
from tests.tiny import Net, batches, data, quiet, trainer

pytestmark = quiet


class Base(LightningModule):
    """Three layers, seen by whoever looks at the layers themselves."""

    def __init__(self):
        super().__init__()
        self.body = Net().body

    def validation_step(self, batch, batch_idx):
        self.training_step(batch, batch_idx)

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class WithoutForward(Base):
    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.cross_entropy(self.body(x), y)


class TwoInputs(Base):
    def forward(self, left, right):
        return self.body(left + right)

    def training_step(self, batch, batch_idx):
        left, right, y = batch
        return nn.functional.cross_entropy(self(left, right), y)


class ByName(Base):
    def forward(self, x):
        return self.body(x)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch["x"]), batch["labels"])


class Nested(Base):
    """Two inputs by name, beside labels in a pair."""

    def forward(self, inputs):
        return self.body(inputs["left"] + inputs["right"])

    def training_step(self, batch, batch_idx):
        inputs, y = batch
        return nn.functional.cross_entropy(self(inputs), y)


class Stateful(Base):
    """Whose ``forward`` is for something else, and fails on training data."""

    def forward(self, question):
        raise ValueError(f"Expected a question, got {question!r}.")

    training_step = WithoutForward.training_step


class NestedRows(Named):
    def __getitem__(self, index):
        x, y = data()[index]
        return {"left": x, "right": x}, y


def three():
    x, y = data().tensors
    return DataLoader(TensorDataset(x, x, y), 8)


MODULES = {
    "without forward": (WithoutForward, batches),
    "two inputs": (TwoInputs, three),
    "labels by name": (ByName, lambda: DataLoader(Named(), 8)),
    "inputs by name": (Nested, lambda: DataLoader(NestedRows(), 8)),
    "another forward": (Stateful, batches),
}


def ran(kind, *callbacks, validation=True):
    cls, loader = MODULES[kind]
    model, done = cls(), trainer(*callbacks, max_epochs=3)
    done.fit(model, loader(), loader() if validation else None)
    return [value.clone() for value in model.state_dict().values()]


@pytest.mark.parametrize("validation", [True, False], ids=["val", "train"])
@pytest.mark.parametrize("kind", MODULES)
@pytest.mark.parametrize("name", CALLBACKS)
def test_is_trained_and_measured(name, kind, validation):
    callbacks = CALLBACKS[name]()
    weights = ran(kind, *callbacks, validation=validation)
    if name in WATCHING:
        assert all(map(torch.equal, weights, ran(kind, validation=validation)))
    numbers = [value for entry in history(callbacks) for value in entry.numbers.values()]
    assert numbers
    assert sum(map(math.isfinite, numbers)) > len(numbers) / 2
