"""The nonlinear dimension of data, from nothing but each point's two nearest neighbours."""

from __future__ import annotations

import statistics
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lightning_saturation.dimension.copies import without_copies
from lightning_saturation.dimension.neighbours import two_nearest
from lightning_saturation.dimension.two_nn_law import FEWEST, TwoNNEstimate, check_options, estimate_from_nearest
from lightning_saturation.shapes import Float


class TwoNNScale(NamedTuple):
    """The dimension at one scale: mean and standard error over ``subsets`` disjoint sets of ``points`` points each.

    The error is the spread over the subsets; with only one it is that of the estimate itself.
    """

    points: int
    dimension: float
    standard_error: float
    subsets: int


def two_nn_dimension(
    x: Float[Tensor, "samples features"], *, discard: float = 0.1, estimator: Literal["fit", "mle"] = "fit"
) -> Float[Tensor, ""]:
    """Return the TwoNN dimension of the rows of ``x``, float64: how many coordinates the data needs locally.

    ``discard`` is the share of points with the largest ratios μ = r₂/r₁ that is left out of the estimate, since those
    obey the law worst. ``estimator="fit"`` is the line of the paper through (log μ, −log(1 − F)), ``"mle"`` the
    unbiased maximum likelihood, for which the left-out ratios count as censored. Copies of rows, which would be
    neighbours of the same points at the same distance, and rows with NaN or infinity are dropped first;
    ``two_nn_estimate`` says how many, and gives an error and an interval.

    Raises:
        ValueError: for options out of range, and where too few different points are left to tell a dimension.

    Source: Facco et al., *Estimating the intrinsic dimension of datasets by a minimal neighborhood information*, 2017;
    used on layers by Ansuini et al., *Intrinsic dimension of data representations in deep neural networks*, 2019.

    >>> plane = torch.rand(1000, 2, generator=torch.Generator().manual_seed(0)) @ torch.tensor([[1.0, 2, 3], [4, 5, 6]])
    >>> round(float(two_nn_dimension(plane)), 1)
    2.0
    """
    estimate = two_nn_estimate(x, discard=discard, estimator=estimator)
    return torch.tensor(estimate.dimension, dtype=torch.float64, device=x.device if x.device.type != "mps" else None)


def two_nn_estimate(
    x: Float[Tensor, "samples features"],
    *,
    discard: float = 0.1,
    estimator: Literal["fit", "mle"] = "fit",
    confidence: float = 0.95,
) -> TwoNNEstimate:
    """Return the TwoNN dimension of the rows of ``x`` with standard error, interval and what was dropped.

    The interval holds the dimension with probability ``confidence``, if TwoNN's assumptions hold: for ``"fit"`` from
    the law of order statistics, for ``"mle"`` from the gamma law. See ``two_nn_dimension`` for the rest.
    """
    check_options(discard, estimator, confidence)
    rows = x[x.isfinite().all(dim=1)]
    points = without_copies(rows)
    return estimate_from_nearest(
        two_nearest(points),
        discard=discard,
        estimator=estimator,
        confidence=confidence,
        duplicates=len(rows) - len(points),
        skipped=len(x) - len(rows),
    )


def two_nn_scales(
    x: Float[Tensor, "samples features"],
    *,
    discard: float = 0.1,
    estimator: Literal["fit", "mle"] = "fit",
    smallest: int = 50,
    seed: int = 0,
) -> list[TwoNNScale]:
    """Return the dimension on N, N/2, N/4, … points, down to ``smallest``: how it depends on the scale.

    Fewer points lie farther apart, so later entries look at larger neighbourhoods. A plateau is a dimension; a value
    that grows with the number of points is noise at small scales or too few points for so high a dimension. The N/2
    points are averaged over two disjoint halves, the N/4 over four quarters and so on, drawn by a generator of their
    own from ``seed``. N counts different points. A subset that can tell nothing is left out of the average and count.

    Source: Facco et al., 2017, section "Estimating a scale-dependent intrinsic dimension".
    """
    check_options(discard, estimator)
    if smallest < FEWEST:
        raise ValueError(f"Expected `smallest` to be at least {FEWEST}, got {smallest}.")
    whole = two_nn_estimate(x, discard=discard, estimator=estimator)
    x = without_copies(x[x.isfinite().all(dim=1)])
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed)).to(x.device)
    scales = [TwoNNScale(len(x), whole.dimension, whole.standard_error, 1)]
    parts = 2
    while len(x) // parts >= smallest:
        size = len(x) // parts
        told = []
        for subset in torch.split(order[: size * parts], size):
            nearest = two_nearest(x[subset])
            if (nearest[:, 0] > 0).sum() >= FEWEST:
                told.append(estimate_from_nearest(nearest, discard=discard, estimator=estimator))
        dimensions = [estimate.dimension for estimate in told]
        if told:
            spread = statistics.stdev(dimensions) / len(told) ** 0.5 if len(told) > 1 else told[0].standard_error
            scales.append(TwoNNScale(size, statistics.fmean(dimensions), spread, len(told)))
        parts *= 2
    return scales
