"""A network's outputs for a fixed set of samples, kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, get_args

import torch
from torch import Tensor, nn

from lightning_saturation.capture.capture import capture
from lightning_saturation.capture.evaluation import each_batch, run
from lightning_saturation.capture.pooling import Pooling

Rows = dict[str, Tensor]
"""Rows (samples, features) on the CPU by layer, in the order in which the layers ran."""

PROBE_POOLINGS = tuple(pooling for pooling in get_args(Pooling) if pooling != "positions")
"""Those that give one row per sample, so that any two layers can be paired."""


def represent(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    layers: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    pooling: Pooling = "mean",
    forward: Callable[[Any], Any] | None = None,
) -> Rows:
    """Return the rows of every layer over all ``batches``, with the model in evaluation mode and left as it was.

    ``forward``, where given, runs the model on a batch.
    """
    kept: dict[str, list[Tensor]] = {}

    def record(name: str, rows: Tensor) -> None:
        kept.setdefault(name, []).append(rows.float().cpu())

    watched = capture(model, record, layers=layers, exclude=exclude, pooling=pooling)
    with each_batch([model], batches) as each, watched:
        for batch, (home,) in each:
            run(model, batch, home) if forward is None else forward(batch)
    return {name: torch.cat(rows) for name, rows in kept.items()}
