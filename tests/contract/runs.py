"""A network that remembers what it was fed, and all that training leaves behind."""

from __future__ import annotations

import hashlib
import random
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn

from tests.contract.loaders import Feed, memory
from tests.tiny import Net, batches, trainer

EPOCHS = 3


class Learner(Net):
    """Three layers with dropout, which learn; batches may be pairs, or nested however a loader nests them."""

    def __init__(self, lr: float = 0.1) -> None:
        super().__init__(lr=lr)
        self.dropout = nn.Dropout(0.2)
        self.fed: list[tuple[str, str]] = []

    def forward(self, x):
        return self.body(self.dropout(x))

    def loss(self, batch):
        return sum(nn.functional.cross_entropy(self(x), y) for x, y in _pairs(batch))

    def training_step(self, batch, batch_idx):
        self.fed.append(("train", _digest(batch)))
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.fed.append(("val", _digest(batch)))
        super().validation_step(batch, batch_idx, dataloader_idx)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)


def _pairs(batch: Any) -> list[Any]:
    if isinstance(batch, Mapping):
        return [(batch["x"], batch["labels"])] if "x" in batch else [p for each in batch.values() for p in _pairs(each)]
    return [batch]


def _tensors(batch: Any) -> list[Tensor]:
    if isinstance(batch, Tensor):
        return [batch]
    return [t for each in (batch.values() if isinstance(batch, Mapping) else batch or ()) for t in _tensors(each)]


def _digest(batch: Any) -> str:
    content = b"".join(tensor.double().cpu().numpy().tobytes() for tensor in _tensors(batch))
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


@dataclass
class Outcome:
    """What training leaves behind, told apart by name."""

    weights: list[Tensor]
    steps: tuple[int, int]
    fed: list[tuple[str, str]] = field(default_factory=list)
    random_state: dict[str, Any] = field(default_factory=dict)
    memory: list[Any] = field(default_factory=list)

    def differs(self, other: Outcome, *, weights: bool = True) -> list[str]:
        """Return the names of what is not bitwise the same."""
        differing = [name for name in ("steps", "fed", "memory") if getattr(self, name) != getattr(other, name)]
        differing += [f"{name} generator" for name, s in self.random_state.items() if s != other.random_state[name]]
        same = len(self.weights) == len(other.weights) and all(map(torch.equal, self.weights, other.weights))
        return differing + (["weights"] if weights and not same else [])


def seed() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)


def outcome(model: Learner, done: Trainer, feed: Feed | None = None) -> Outcome:
    """Return what ``model`` and everything around it are like now."""
    return Outcome(
        weights=[value.detach().clone() for value in model.state_dict().values()],
        steps=(done.current_epoch, done.global_step),
        fed=model.fed,
        random_state={
            "torch": torch.get_rng_state().tolist(),
            "numpy": str(np.random.get_state()),
            "python": random.getstate(),
        },
        memory=[] if feed is None else [memory(thing) for thing in feed.remembering],
    )


def train(*callbacks: Callback, feed: Feed | None = None, model: Learner | None = None, **options: Any) -> Outcome:
    """Train from the same start as every time, and return what that leaves behind."""
    seed()
    feed = Feed(batches(shuffle=True), batches(16)) if feed is None else feed
    model = Learner() if model is None else model
    ckpt_path = options.pop("ckpt_path", None)
    done = trainer(*callbacks, **{"max_epochs": EPOCHS, **feed.options, **options})
    done.fit(model, feed.train, feed.val, ckpt_path=ckpt_path)
    return outcome(model, done, feed)


class Ending(Callback):
    """Ends training after ``epochs``, or once nothing has failed anywhere for three."""

    def __init__(self, epochs=None, trouble=None):
        self.epochs, self.trouble, self.fired = epochs, trouble, []

    def on_train_epoch_end(self, trainer, pl_module):
        self.fired.append(0 if self.trouble is None else len(self.trouble.fired))
        calm = len(self.fired) > 3 and self.fired[-1] == self.fired[-4]
        done = calm if self.epochs is None else len(self.fired) >= self.epochs
        trainer.should_stop = trainer.strategy.reduce_boolean_decision(done)


class Heard:
    """The warnings within a context, said once for every time that somebody warned."""

    def __enter__(self) -> Heard:
        self._context = warnings.catch_warnings(record=True)
        self._caught = self._context.__enter__()
        warnings.simplefilter("always")
        return self

    def __exit__(self, *args: Any) -> None:
        self._context.__exit__(*args)

    def about(self, words: str) -> list[str]:
        """Return the messages that hold ``words``."""
        return [text for warning in self._caught if words in (text := str(warning.message))]
