"""Dimension from the ratios of the two nearest distances, which follow a Pareto law with the dimension as its shape."""

from __future__ import annotations

import math
import statistics
from contextlib import suppress
from typing import Any, Literal, NamedTuple

import torch
from scipy.special import gammaincinv, ndtri
from torch import Tensor

from lightning_saturation.arguments import check_choice, check_share
from lightning_saturation.shapes import Float

FEWEST = 5  # points with two distinct neighbours; an estimate from fewer has an error as large as itself


class TwoNNEstimate(NamedTuple):
    """A dimension with its error: what ``points`` many ratios say.

    ``standard_error`` and the interval from ``low`` to ``high`` assume what TwoNN assumes, an even density within the
    reach of two neighbours and independent ratios. ``duplicates`` rows were copies of others and
    were dropped before neighbours were looked for, ``skipped`` rows held NaN or infinity.
    """

    dimension: float
    standard_error: float
    low: float
    high: float
    points: int
    duplicates: int = 0
    skipped: int = 0

    @property
    def beyond_reach(self) -> bool:
        """Whether so few points cannot show a dimension this high; it is a lower bound then.

        Among N points that fill d dimensions evenly, a neighbour is about N^(−1/d) of the extent away. Where that is
        more than one half, d > log₂ N, a neighbourhood is as large as the data and mostly edge, which biases the
        estimate downwards (Eckmann and Ruelle, *Fundamental limitations for estimating dimensions*, 1992).
        """
        return self.dimension > math.log2(max(self.points, 2))


def check_options(discard: Any, estimator: Any, confidence: Any = 0.95) -> None:
    """Raise a ``ValueError`` for an option that no estimate can be made with."""
    check_share("discard", discard, zero=True, one=False)
    check_choice("estimator", estimator, ("fit", "mle"))
    check_share("confidence", confidence, one=False)


def estimate_from_nearest(
    nearest: Float[Tensor, "points 2"],
    *,
    discard: float = 0.1,
    estimator: Literal["fit", "mle"] = "fit",
    confidence: float = 0.95,
    duplicates: int = 0,
    skipped: int = 0,
) -> TwoNNEstimate:
    """Return the TwoNN estimate from the distances of points to their two nearest neighbours, ascending.

    The points must be different: a copy of a neighbour is a neighbour at the same distance, μ = 1, and biases the
    dimension upwards. ``duplicates`` copies were left out before; points at a distance of 0 are left out here.

    Raises:
        ValueError: for options out of range, and where no dimension can be told: fewer than five points that have two
            neighbours and no duplicate, or no point whose neighbours differ in distance (a lattice).
    """
    check_options(discard, estimator, confidence)
    nearest = nearest.double()
    duplicates += int((nearest[:, 0] == 0).sum())
    told = nearest[(nearest[:, 0] > 0) & nearest[:, 1].isfinite()]
    points = len(told)
    if points < FEWEST:
        raise ValueError(
            f"Expected at least {FEWEST} different points with two neighbours each, got {points} "
            f"({duplicates} duplicates and {skipped} rows with NaN or infinity were dropped)."
        )
    ratios = (told[:, 1].log() - told[:, 0].log()).sort().values
    kept = _kept(points, discard)
    if kept < 2 or ratios[kept - 1] <= 0:
        raise ValueError(
            f"Expected points whose two nearest neighbours differ in distance, got {points} points of which the "
            f"{kept} that are used do not (points on a lattice, or `discard` = {discard} is too large)."
        )
    make = _fit if estimator == "fit" else _likelihood
    return TwoNNEstimate(*make(ratios, kept, confidence), points, duplicates, skipped)


def _kept(points: int, discard: float) -> int:
    return math.floor(points * (1.0 - discard) + 1e-9)  # 100 * (1 - 0.71) is 28.999999999999996


def _fit(ratios: Tensor, kept: int, confidence: float) -> tuple[float, float, float, float]:
    """Return slope, standard error and interval of the line through the origin of −log(1 − F) over log μ.

    Source: Facco et al., *Estimating the intrinsic dimension of datasets by a minimal neighborhood information*, 2017.
    """
    points = len(ratios)
    kept = min(kept, points - 1)  # the last point has F = 1, and −log(1 − F) is infinite
    x = ratios[:kept]
    y = -torch.log1p(-torch.arange(1, kept + 1, dtype=torch.float64, device=ratios.device) / points)
    slope = float((x @ y) / (x @ x))
    relative = _relative_error(y, points)
    reach = math.exp(float(ndtri(0.5 + confidence / 2)) * relative)
    return slope, slope * relative, slope / reach, slope * reach


def _relative_error(y: Float[Tensor, " kept"], points: int) -> float:
    """Return the standard deviation of the fitted slope over the slope; it depends on the counts only.

    log μ is exponential, and the i-th smallest of N exponentials is a sum of independent ones with variances
    1/(N − l + 1)², l ≤ i (Rényi, *On the theory of order statistics*, 1953). To first order in the deviations δ from
    the means y, the slope is off by −Σyδ/Σy² of itself. The usual error of a regression takes the points of the curve
    for independent and comes out several times too small.
    """
    behind = y.flip(0).cumsum(0).flip(0)
    gaps = torch.arange(points, points - len(y), -1, dtype=torch.float64, device=y.device)
    return float((behind / gaps).norm() / (y @ y))


def _likelihood(ratios: Tensor, kept: int, confidence: float) -> tuple[float, float, float, float]:
    """Return the unbiased maximum-likelihood estimate, its standard error and its exact gamma interval.

    The discarded ratios count as "at least as large as the largest kept one", so the estimate stays unbiased; without
    any it is (N − 1)/Σ log μ. The sum T of log μ follows a gamma law with shape ``kept`` and rate d.

    Source: Denti et al., *The generalized ratios intrinsic dimension estimator*, 2022; Epstein and Sobel, *Life
    testing*, 1953, for the discarded ones.
    """
    total = float(ratios[:kept].sum() + (len(ratios) - kept) * ratios[kept - 1])
    dimension = (kept - 1) / total
    error = dimension / math.sqrt(kept - 2) if kept > 2 else math.inf
    low, high = (float(gammaincinv(kept, 0.5 + side * confidence / 2)) / total for side in (-1, 1))
    return dimension, error, low, high


def error_over_splits(
    nearest: Float[Tensor, "points 2"],
    *,
    splits: int = 10,
    discard: float = 0.1,
    estimator: Literal["fit", "mle"] = "fit",
    seed: int = 0,
) -> float:
    """Return the standard error of the estimate from its spread over ``splits`` disjoint random parts of the points.

    All parts keep their neighbours among all points, so they look at the same scale. Where the density is uneven this
    error is more honest than the one that the law of the ratios implies. NaN where fewer than two parts have enough
    points. The parts are drawn by a generator of their own.
    """
    if splits < 2:
        raise ValueError(f"Expected `splits` of at least 2, got {splits}.")
    order = torch.randperm(len(nearest), generator=torch.Generator().manual_seed(seed)).to(nearest.device)
    told = []
    for part in torch.tensor_split(order, splits):
        with suppress(ValueError):  # too few different points in this part
            told.append(estimate_from_nearest(nearest[part], discard=discard, estimator=estimator).dimension)
    return statistics.stdev(told) / len(told) ** 0.5 if len(told) > 1 else math.nan
