"""A network's outputs for a fixed set of samples, kept."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, get_args

import torch
from torch import Tensor, nn

from lightning_saturation.capture.capture import Capture
from lightning_saturation.capture.evaluation import Batches
from lightning_saturation.capture.pooling import Pooling
from lightning_saturation.capture.select import CaptureOptions

Rows = dict[str, Tensor]
"""Rows (samples, features) on the CPU by layer, in the order in which the layers ran."""

PROBE_POOLINGS = tuple(pooling for pooling in get_args(Pooling) if pooling != "positions")
"""Those that give one row per sample, so that any two layers can be paired."""


def represent(
    model: nn.Module,
    batches: Iterable[Any],
    options: CaptureOptions = CaptureOptions(),  # noqa: B008
    *,
    forward: Callable[[Any], Any] | None = None,
) -> Rows:
    """Return the rows of every layer over all ``batches``, with the model in evaluation mode and left as it was.

    ``forward``, where given, runs the model on a batch. Layers that put out more or fewer rows than there are samples
    (flattened tokens, windows, a layer that runs several times) cannot be paired with others: they are left out, with
    one warning, unless none is left.
    """
    kept: dict[str, list[Tensor]] = {}
    samples = 0

    def record(name: str, rows: Tensor) -> None:
        kept.setdefault(name, []).append(rows.float().cpu())

    watched = Capture(model, record, options)
    data = Batches(batches)
    with data.over(model) as each, watched:
        for batch, (home,) in each:
            for again in watched.attempts(batch):
                if again:
                    kept.clear()
                data.run(model, batch, home) if forward is None else forward(batch)
            samples += watched.size
    found = {name: torch.cat(rows) for name, rows in kept.items()}
    (odd,) = unpaired([found], samples)
    return {name: rows for name, rows in found.items() if name not in odd}


def unpaired(outputs: Sequence[Mapping[str, Tensor]], samples: int) -> list[set[str]]:
    """Return, of each network, the layers that did not put out one row for each of the ``samples``, and warn of them.

    Where no layer did, those are taken for the samples that most of them put out.
    """
    counts = Counter(len(output) for each in outputs for output in each.values())
    wanted = samples if samples in counts else max(counts, key=counts.__getitem__, default=0)
    odd = [{name for name, output in each.items() if len(output) != wanted} for each in outputs]
    if any(odd):
        warnings.warn(
            f"{sorted(set().union(*odd))} do not put out one row for each of the {wanted} samples, and cannot be paired"
            " with layers that do; they are left out. `exclude` them to hear no more of it.",
            stacklevel=4,
        )
    return odd
