"""A wide network that is pruned against narrow ones that were narrow from the start (Morcos et al., section 3.2)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import nn

from paper.settings import Settings
from paper.studies.bench import Bench, by_epoch


class Pruning(Callback):
    """Set the smallest weights of every layer to nought, more of them every epoch, and keep them there.

    From the first epoch to the middle one the share that is kept falls to ``kept``, by the same factor each time.
    """

    def __init__(self, kept: float) -> None:
        self.kept = kept
        self._masks: list[tuple[nn.Parameter, torch.Tensor]] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        done = min(1.0, (trainer.current_epoch + 1) / max(1, (trainer.max_epochs or 1) // 2))
        layers = [layer for layer in pl_module.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
        self._masks = [(layer.weight, _largest(layer.weight.detach(), self.kept**done)) for layer in layers[:-1]]
        self._apply()

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        self._apply()

    @torch.no_grad()
    def _apply(self) -> None:
        for weight, mask in self._masks:
            weight.mul_(mask)


def answer(bench: Bench, of: tuple[Settings, ...]) -> None:
    """Train wide, go on with ever fewer weights; train narrow for as long; a wide one that only goes on beside it."""
    wide, narrow = of
    long = replace(narrow, epochs=narrow.epochs + wide.epochs)
    for seed in bench.seeds():
        runs = [replace(each, seed=seed) for each in (wide, narrow, long)]
        bench.part(f"pruned {seed}", lambda runs=runs: _pruned(bench, runs[0], runs[1], prune=True))
        bench.part(f"wide {seed}", lambda runs=runs: _pruned(bench, runs[0], runs[1], prune=False))
        bench.part(f"narrow {seed}", lambda runs=runs: _plain(bench, runs[2]))


def _pruned(bench: Bench, wide: Settings, narrow: Settings, *, prune: bool) -> dict[str, Any]:
    first, few = bench.trained(wide).trained, bench.trained(narrow).trained
    kept = _weights(few) / _weights(first)
    callbacks = [Start(first.state_dict()), *([Pruning(kept)] if prune else [])]
    network, rows = bench.fit(wide, f"{'pruned' if prune else 'wide'}-{wide.seed}", callbacks)
    return {"kept": kept, "weights": _nonzero(network)} | by_epoch(rows, "val/accuracy", "val/loss")


def _plain(bench: Bench, settings: Settings) -> dict[str, Any]:
    network, rows = bench.fit(settings, f"narrow-{settings.seed}")
    return {"weights": _nonzero(network)} | by_epoch(rows, "val/accuracy", "val/loss")


class Start(Callback):
    """Begin with these weights; a fit that goes on from a checkpoint has its own."""

    def __init__(self, weights: dict[str, torch.Tensor]) -> None:
        self.weights = weights

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.ckpt_path:
            pl_module.network.load_state_dict(self.weights)


def _largest(weight: torch.Tensor, kept: float) -> torch.Tensor:
    count = max(1, round(kept * weight.numel()))
    smallest = weight.abs().flatten().kthvalue(weight.numel() - count + 1).values
    return (weight.abs() >= smallest).to(weight)


def _weights(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.ndim > 1)


def _nonzero(model: nn.Module) -> int:
    return sum(int(p.count_nonzero()) for p in model.parameters() if p.ndim > 1)
