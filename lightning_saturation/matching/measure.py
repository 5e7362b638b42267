"""Whether two networks learned the same units."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from lightning_saturation.capture.evaluation import Batches, Forward
from lightning_saturation.capture.pooling import Pooling, check_pooling
from lightning_saturation.capture.select import CaptureOptions
from lightning_saturation.covariance.moments import Moments, ShiftedSums, add_rows, empty_sums, from_sums, merge_moments
from lightning_saturation.matching.lasso import sparse_mapping
from lightning_saturation.matching.report import ConvergentLearning, LayerMatch
from lightning_saturation.matching.units import match_units, unit_correlation
from lightning_saturation.similarity.pairs import split_moments
from lightning_saturation.similarity.views import outputs_of, view

DECAYS = (0.0, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
"""Those of the paper's table 1."""


def match_networks(
    model_a: nn.Module,
    model_b: nn.Module,
    batches: Iterable[Any],
    *,
    layers: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    pooling: Pooling = "positions",
    decay: Sequence[float] = DECAYS,
    held_out: bool = False,
    max_batches: int | None = None,
    device: torch.device | str | None = None,
    progress: bool = True,
    forward: Forward | None = None,
) -> ConvergentLearning:
    """Return how the units of ``model_a`` and ``model_b`` correspond, for every layer of the same name in both.

    Correlations within and between the networks, the best one-to-one assignment and each unit's best partner in both
    directions, and how well sparse combinations of the first network's units predict the second's, for each L1 penalty
    in ``decay``: all from one pass over ``batches``, whatever their number. A channel at every position is a sample of
    its unit, unless ``pooling`` says otherwise. ``forward(model, batch)`` runs models that take more than one tensor.

    With ``held_out``, partners and mappings are found on every other sample, and their correlations and losses are
    those on the rest, which flatters neither; correlations within and between the networks are of all samples still.

    Raises ``ValueError`` for unknown layers, no layer in common, maps of different size in one layer, or no batch.

    Source: Li et al., *Convergent learning*, 2016, sections 2 to 4 and table 1.
    """
    as_maps = check_pooling(pooling) == "positions"
    halves: dict[str, list[ShiftedSums]] = {}
    units: dict[str, int] = {}
    samples = 0
    options = CaptureOptions(layers, exclude, None if as_maps else pooling)
    data = Batches(batches, max_batches, device, forward, bar="similarity" if progress else None)
    for first, second in outputs_of([model_a, model_b], [options, options], data):
        for name in [name for name in first if name in second]:
            parts = [slice(None)] if not held_out else [slice(samples % 2, None, 2), slice((samples + 1) % 2, None, 2)]
            for half, part in enumerate(parts):
                x, y = _rows(name, first[name][part], second[name][part])
                units[name] = x.shape[1]
                kept = halves.setdefault(name, [])
                if half == len(kept):
                    kept.append(empty_sums(x.shape[1] + y.shape[1], device=x.device))
                add_rows(kept[half], torch.cat([x, y.to(x.device)], dim=1))
        samples += max((len(output) for output in first.values()), default=0)
    if not halves:
        raise ValueError("Expected `batches` with at least one batch that reaches a layer of both models, got none.")
    if held_out and samples < 2:
        raise ValueError("Expected at least two samples to hold one out, got one.")
    return ConvergentLearning(
        {name: _match([from_sums(half) for half in kept], units[name], decay) for name, kept in halves.items()}
    )


def _rows(name: str, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    if first.shape[2:] != second.shape[2:]:
        sizes = tuple(first.shape[2:]), tuple(second.shape[2:])
        raise ValueError(f"Expected maps of one height and width in {name!r} of both models, got {sizes}.")
    size = None if first.ndim == 2 else (first.shape[2], first.shape[3])
    return view(first, size=size, method="svcca")[0], view(second, size=size, method="svcca")[0]


def _match(halves: Sequence[Moments], units: int, decay: Sequence[float]) -> LayerMatch:
    """Return the match of one layer from the joint moments of all samples, or of those to fit and those to judge by."""
    halves = [Moments(*(part.cpu() for part in half)) for half in halves]
    fit, judge = (split_moments(half, x_features=units) for half in (halves[0], halves[-1]))
    pair = split_moments(reduce(merge_moments, halves), x_features=units)
    own = tuple(unit_correlation(Moments(pair.samples, own.diagonal(), own.contiguous())) for own in (pair.xx, pair.yy))
    chosen_by = unit_correlation(fit)
    seen_in = unit_correlation(judge) if len(halves) > 1 else None
    return LayerMatch(
        within=(own[0], own[1]),
        between=unit_correlation(pair),
        bipartite=match_units(chosen_by, method="bipartite", held_out=seen_in),
        semi=match_units(chosen_by, method="semi", held_out=seen_in),
        mapping=sparse_mapping(fit, decay=list(decay), held_out=judge if len(halves) > 1 else None),
        samples=int(pair.samples),
    )
