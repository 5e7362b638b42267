"""Reports built for a purpose: every layer's spectrum is chosen so that its saturation is known."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch

from lightning_saturation.saturation.report.layer import LayerStatistics
from lightning_saturation.saturation.report.report import SaturationReport


@cache  # pictures of many windows are made of few layers
def layer(dimension: int, features: int = 100, *, samples: int = 10_000, decay: float = 0.0) -> LayerStatistics:
    """Return a layer whose ``dimension`` directions (below 100) hold all the variance, equally if ``decay`` is 0."""
    eigenvalues = torch.zeros(features, dtype=torch.float64)
    eigenvalues[:dimension] = torch.arange(1, dimension + 1, dtype=torch.float64) ** -decay
    return LayerStatistics.from_eigenvalues(eigenvalues, features=features, samples=samples)


@cache
def missing(features: int = 100) -> LayerStatistics:
    """Return a layer of which nothing is known, although it saw enough: its eigenproblem failed."""
    return LayerStatistics.from_eigenvalues(None, features=features, samples=10_000)


def profile(
    percent: Sequence[int | None],
    *,
    epoch: int = 0,
    stage: str = "train",
    samples: int = 10_000,
    names: Sequence[str] | None = None,
    output: bool = False,
) -> SaturationReport:
    """Return a report over layers of 100 features with the given saturations in percent; None stands for missing."""
    names = [f"features.{i}" for i in range(len(percent))] if names is None else names
    layers = {n: missing() if p is None else layer(p, samples=samples) for n, p in zip(names, percent, strict=True)}
    output_layers = tuple(names[-1:]) if output else ()
    return SaturationReport(layers, stage, epoch, step=10 * (epoch + 1), output_layers=output_layers)
