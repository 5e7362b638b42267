"""What a network makes of a fixed set of samples, kept, and compared with what it made of them at another time."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any, get_args

import torch
from torch import Tensor, nn

from lightning_saturation.capture import capture
from lightning_saturation.capture.running import each_batch, run
from lightning_saturation.functional.pooling import Pooling
from lightning_saturation.metrics.ranks import LOCAL
from lightning_saturation.report.similarity import SimilarityMatrix
from lightning_saturation.tracking.comparison import Comparison
from lightning_saturation.tracking.views import Method, Outputs

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


def compare_rows(
    left: Mapping[str, Tensor], right: Mapping[str, Tensor], *, method: Method, delta: float | None
) -> SimilarityMatrix:
    """Return the similarity of every layer in ``left`` with every layer in ``right``, rows of the same samples."""
    finite = torch.stack([rows.isfinite().all(1) for rows in (*left.values(), *right.values())]).all(0)
    batch: list[Outputs] = [{name: rows[finite] for name, rows in side.items()} for side in (left, right)]

    def passes() -> Generator[list[Outputs]]:
        yield batch

    return Comparison(method=method, delta=delta, memory=2**62, group=LOCAL).matrix(passes)


def compare_same_layers(
    left: Mapping[str, Tensor], right: Mapping[str, Tensor], *, method: Method, delta: float | None
) -> dict[str, float]:
    """Return the similarity of every layer with itself at another time."""
    return {
        name: compare_rows({name: rows}, {name: right[name]}, method=method, delta=delta)[name, name]
        for name, rows in left.items()
        if name in right
    }
