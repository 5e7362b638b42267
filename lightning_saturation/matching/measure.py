"""Whether two networks learned the same units."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_saturation.capture.evaluation import Forward
from lightning_saturation.capture.pooling import Pooling, check_pooling
from lightning_saturation.covariance.moments import Moments, ShiftedSums, add_rows, empty_sums, from_sums
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

    Raises ``ValueError`` for unknown layers, no layer in common, maps of different size in one layer, or no batch.

    Source: Li et al., *Convergent learning*, 2016, sections 2 to 4 and table 1.
    """
    as_maps = check_pooling(pooling) == "positions"
    sums: dict[str, tuple[ShiftedSums, int]] = {}
    outputs = outputs_of(
        [model_a, model_b],
        batches,
        layers=[layers, layers],
        exclude=exclude,
        pooling=None if as_maps else pooling,
        max_batches=max_batches,
        device=device,
        progress=progress,
        forward=forward,
    )
    for first, second in outputs:
        for name in [name for name in first if name in second]:
            x, y = _rows(name, first[name], second[name])
            if name not in sums:
                sums[name] = empty_sums(x.shape[1] + y.shape[1], device=x.device), x.shape[1]
            add_rows(sums[name][0], torch.cat([x, y.to(x.device)], dim=1))
    if not sums:
        raise ValueError("Expected `batches` with at least one batch that reaches a layer of both models, got none.")
    return ConvergentLearning({name: _match(from_sums(kept), units, decay) for name, (kept, units) in sums.items()})


def _rows(name: str, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    if first.shape[2:] != second.shape[2:]:
        sizes = tuple(first.shape[2:]), tuple(second.shape[2:])
        raise ValueError(f"Expected maps of one height and width in {name!r} of both models, got {sizes}.")
    size = None if first.ndim == 2 else (first.shape[2], first.shape[3])
    return view(first, size=size, method="svcca")[0], view(second, size=size, method="svcca")[0]


def _match(joint: Moments, units: int, decay: Sequence[float]) -> LayerMatch:
    pair = split_moments(Moments(*(part.cpu() for part in joint)), x_features=units)
    between = unit_correlation(pair)
    own = tuple(unit_correlation(Moments(pair.samples, own.diagonal(), own.contiguous())) for own in (pair.xx, pair.yy))
    return LayerMatch(
        within=(own[0], own[1]),
        between=between,
        bipartite=match_units(between, method="bipartite"),
        semi=match_units(between, method="semi"),
        mapping=sparse_mapping(pair, decay=list(decay)),
        samples=int(pair.samples),
    )
