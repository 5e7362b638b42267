"""What the examples on similarity share: their arguments, one training, one measurement of accuracy."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning import Callback, Trainer, seed_everything
from torch import nn

from .classifier import Classifier
from .data import Images
from .networks import NETWORKS, network


class Run(NamedTuple):
    """A trained network with its accuracy on the test images, by epoch and at the end, and the seconds it took."""

    model: nn.Module
    accuracy: float
    history: list[float]
    seconds: float
    trainer: Trainer


def arguments(description: str, *, epochs: int, model: str = "cnn") -> argparse.ArgumentParser:
    """Return a parser with the arguments that every example takes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder or zip of class/image files; without it scikit-learn's digits")
    parser.add_argument("--limit", type=int, help="use so many images in all")
    parser.add_argument("--size", type=int, help="side of the images in pixels (files: 32 unless told)")
    parser.add_argument("--model", default=model, choices=NETWORKS)
    parser.add_argument("--width", type=float, default=1.0, help="factor on every layer's features, such as 0.25")
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path.cwd(), help="where pictures go")
    return parser


def train(
    data: Images, options: argparse.Namespace, *, seed: int | None = None, callbacks: Sequence[Callback] = ()
) -> Run:
    """Return a network trained as ``options`` say; the same seed gives the same weights and the same batches."""
    seed = options.seed if seed is None else seed
    seed_everything(seed, verbose=False)
    options.out.mkdir(parents=True, exist_ok=True)
    classifier = Classifier(
        network(options.model, data.shape, len(data.classes), width=options.width), len(data.classes)
    )
    history = _History()
    trainer = Trainer(
        max_epochs=options.epochs,
        callbacks=[*callbacks, history],
        logger=False,
        accelerator="auto",
        devices=1,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
    )
    start = time.perf_counter()
    trainer.fit(classifier, data.train_loader(options.batch_size, seed=seed), data.test_loader())
    seconds = time.perf_counter() - start
    model = classifier.network.eval()
    return Run(model, accuracy(model, data), history.values, seconds, trainer)


def accuracy(model: nn.Module, data: Images) -> float:
    """Return the share of test images that ``model`` gets right."""
    right = total = 0
    with torch.no_grad():
        for images, labels in data.test_loader():
            right += int((model(images).argmax(1) == labels).sum())
            total += len(labels)
    return right / total


class _History(Callback):
    def __init__(self) -> None:
        self.values: list[float] = []

    def on_validation_end(self, trainer: Trainer, *args: Any) -> None:
        self.values.append(float(trainer.callback_metrics["val/accuracy"]))
