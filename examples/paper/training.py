"""Training a run: where its files are, the batches it gets, a fit that goes on after a kill."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from torch import nn

from paper.data import Batches, Windows, cached, chosen, loader, text
from paper.measure import Subject, batches_of
from paper.networks import build
from paper.record import History, LastEpoch
from paper.settings import Settings
from paper.task import Training

HERE = Path(__file__).resolve().parent

CONTEXT = 64
"""Characters that the transformer sees."""


@dataclass(frozen=True)
class Places:
    """Where data comes from, where decoded data and checkpoints are kept, where records go."""

    data: str
    cache: Path
    results: Path

    def of(self, name: str, kind: str) -> Path:
        """Return the file of one run that is kept in the cache."""
        path = self.cache / kind / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


@dataclass(frozen=True)
class Inputs:
    """The run's batches: training in its order, the same samples as they lie, test; classes or characters."""

    train: Batches | Windows
    still: Batches | Windows
    test: Batches | Windows
    shape: tuple[int, ...]
    classes: int
    description: str

    def probes(self, settings: Settings) -> list[Any]:
        """Return batches of the training samples, as they lie, on which networks are measured."""
        drawn = torch.randperm(len(self.still), generator=torch.Generator().manual_seed(0))[: settings.probes]
        return batches_of(loader(torch.utils.data.Subset(self.still, drawn.tolist()), 256), settings.probes)

    def tests(self) -> Any:
        """Return a loader of the test samples."""
        return loader(self.test, 256)


def inputs_of(settings: Settings, places: Places) -> Inputs:
    """Return the samples of the run."""
    if settings.task == "predict":
        train, test, alphabet = text()
        train, test = (part[: settings.limit and 10 * settings.limit] for part in (train, test))
        windows = [Windows(part, context=CONTEXT, stride=32) for part in (train, test)]
        told = f"{len(train)} and {len(test)} characters of Python's language reference, {len(alphabet)} kinds"
        return Inputs(windows[0], windows[0], windows[1], (CONTEXT,), len(alphabet), told)
    images = chosen(cached(places.data, places.cache), settings)
    scale = images.scale
    pixels, labels = images.train_pixels, images.train_labels
    return Inputs(
        Batches(pixels, labels, scale, augment=settings.augment),
        Batches(pixels, labels, scale),
        Batches(images.test_pixels, images.test_labels, scale),
        images.shape,
        len(images.classes),
        str(images),
    )


def fit(
    settings: Settings,
    inputs: Inputs,
    places: Places,
    *,
    name: str = "",
    callbacks: Sequence[Callback] = (),
    progress: bool = False,
) -> tuple[nn.Module, list[dict[str, Any]]]:
    """Return the trained network and what was logged, by epoch; ``name`` is that of its checkpoint.

    A fit that was killed goes on after the last complete epoch, with the state of its ``callbacks``.
    """
    checkpoint = places.of(f"{name or settings.name}.ckpt", "checkpoints")
    network, history = build(settings, inputs.shape, inputs.classes), History()
    trainer = Trainer(
        max_epochs=settings.epochs,
        callbacks=[*callbacks, history, LastEpoch(checkpoint)],
        logger=False,
        accelerator="auto",
        devices=1,
        enable_progress_bar=progress,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(
        Training(network, settings),
        loader(inputs.train, settings.batch_size, seed=settings.seed),
        loader(inputs.test, 256),
        ckpt_path=checkpoint if checkpoint.exists() else None,
        weights_only=True,
    )
    if trainer.interrupted:
        raise KeyboardInterrupt
    checkpoint.unlink()
    return network.cpu(), history.rows


def subject(settings: Settings, inputs: Inputs, weights: Path) -> Subject:
    """Return the network with the ``weights`` that it has in a file, ready to be measured."""
    trained, untrained = (build(settings, inputs.shape, inputs.classes) for _ in range(2))
    trained.load_state_dict(torch.load(weights))
    return Subject(settings, trained.eval(), untrained.eval(), inputs.probes(settings), inputs.tests())


def keep(network: nn.Module, weights: Path) -> None:
    """Write the weights of ``network`` into a file, whole or not at all."""
    beside = weights.with_suffix(weights.suffix + ".new")
    torch.save(network.state_dict(), beside)
    beside.replace(weights)


@contextmanager
def alone(path: Path) -> Iterator[bool]:
    """Say whether nobody else holds ``path``, and hold it meanwhile; a process that dies lets it go."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
