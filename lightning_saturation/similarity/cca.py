"""Canonical correlations between two representations, and the similarities made of them."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_saturation.covariance.spectrum import check_delta, intrinsic_dimension
from lightning_saturation.shapes import Float
from lightning_saturation.similarity.pairs import PairMoments, as_pair

# Directions whose standard deviation is below a millionth of the largest one are rounding residue of float32 data:
# duplicate and constant features leave exactly such directions, and dividing by them would turn noise into signal.
RESIDUE = 1e-12
# A feature whose standard deviation is below 1e-10 of the largest one's counts as constant: less than float64 leaves of
# a constant when its mean is rounded.
CONSTANT = 1e-20
# Correlations closer than this are one: their directions are any basis of a subspace, which rounding turns about.
TIE = 1e-6


class CCA(NamedTuple):
    """Canonical correlations, largest first, and the directions that have them, both float64.

    ``x @ x_directions`` and ``y @ y_directions`` correlate pairwise by ``correlations`` and not otherwise; their
    centred sum of squares over the samples is 1. ``x_kept`` and ``y_kept`` count the principal directions that went in.
    """

    correlations: Float[Tensor, " pairs"]
    x_directions: Float[Tensor, "x_features pairs"]
    y_directions: Float[Tensor, "y_features pairs"]
    x_kept: int
    y_kept: int

    @property
    def mean(self) -> Tensor:
        """Mean correlation (0-d); NaN where one side has no variance."""
        return self.correlations.mean() if len(self.correlations) else self.correlations.new_tensor(torch.nan)


class ProjectionWeighted(NamedTuple):
    """Projection-weighted CCA from the side of ``x``, from the side of ``y``, and the mean of both, 0-d each."""

    x: Float[Tensor, ""]
    y: Float[Tensor, ""]
    mean: Float[Tensor, ""]


def cca(
    x: Float[Tensor, "x_samples x_features"] | PairMoments,
    y: Float[Tensor, "y_samples y_features"] | None = None,
    *,
    delta: float | None = None,
) -> CCA:
    """Return the canonical correlations of ``x`` and ``y`` with their directions.

    ``x`` and ``y`` are rows of the same samples, or ``x`` holds their moments. Each side keeps the principal directions
    that hold ``delta`` of its variance; None keeps all but rounding residue: of features scaled to unit variance, the
    directions whose variance is below 1e-12 of the largest, and features with a standard deviation below 1e-10 of the
    largest. With ``delta=None`` it is invariant to the scales of features, each by itself, and to affine maps of either
    side whose condition leaves no direction below that; to orthogonal maps, scaling and offsets otherwise.
    A side without variance gives no correlations. Warns where so few samples carry so many directions that some
    correlations are 1 whatever the data says. Raises ``ValueError`` for rows of different samples or a bad ``delta``.

    Source: Raghu et al., *SVCCA*, section 2; Hotelling, *Relations between two sets of variates*, 1936.

    >>> x = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0], [3.0, 1.0]])
    >>> cca(x, 2 * x[:, :1] + 7).correlations.round(decimals=9)
    tensor([1.], dtype=torch.float64)
    """
    pair = as_pair(x, y)
    return correlate(pair, whiten(pair.xx, delta=delta), whiten(pair.yy, delta=delta))


def svcca(
    x: Float[Tensor, "x_samples x_features"] | PairMoments,
    y: Float[Tensor, "y_samples y_features"] | None = None,
    *,
    delta: float = 0.99,
) -> Float[Tensor, ""]:
    """Return the mean canonical correlation of the directions that hold ``delta`` of each side's variance, in [0, 1].

    ``delta`` is a share of the *variance*, not of the sum of singular values. NaN where one side has no variance.
    Invariant to orthogonal maps, scaling and offsets of either side, but not to every affine map, which changes the
    directions that are kept. Inputs, warnings and errors are those of ``cca``.

    Source: Raghu et al., *SVCCA*, equation 1.
    """
    return cca(x, y, delta=delta).mean


def pwcca(
    x: Float[Tensor, "x_samples x_features"] | PairMoments,
    y: Float[Tensor, "y_samples y_features"] | None = None,
    *,
    delta: float | None = None,
) -> ProjectionWeighted:
    """Return CCA with each correlation weighted by how much of the representation its direction accounts for.

    The weight of a direction is the sum over features of the absolute product of the direction's values with the
    feature's, centred, which differs between the sides: both and their mean come back, each in [0, 1], NaN where one
    side has no variance. Directions whose correlations tie (within 1e-6, as with a skip connection) are any basis of a
    subspace: together they weigh what they do on average over all its bases. Depends on the features' scale. Inputs,
    warnings and errors are those of ``cca``.

    Source: Morcos, Raghu and Bengio, *Insights on representational similarity*, 2018, section 3.

    >>> x = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0], [3.0, 1.0], [4.0, 0.0]])
    >>> pwcca(x, x @ torch.tensor([[1.0, 1.0], [0.0, 3.0]])).mean.round(decimals=9)
    tensor(1., dtype=torch.float64)
    """
    pair = as_pair(x, y)
    return weigh(pair, cca(pair, delta=delta))


def weigh(pair: PairMoments, found: CCA) -> ProjectionWeighted:
    """Return the correlations ``found`` in ``pair``, weighted by the projections of both sides."""
    x = _weighted_mean(found.correlations, pair.xx @ found.x_directions)
    y = _weighted_mean(found.correlations, pair.yy @ found.y_directions)
    return ProjectionWeighted(x, y, (x + y) / 2)


def class_similarity(
    x: Float[Tensor, "x_samples features"] | PairMoments,
    logits: Float[Tensor, "logit_samples classes"] | None = None,
    *,
    delta: float | None = None,
) -> Float[Tensor, " classes"]:
    """Return the canonical correlation of ``x`` with each class's logit (classes,), all at once, in [0, 1].

    It is the multiple correlation: how well the best linear readout of ``x`` predicts the logit. NaN for a constant
    logit, 0 for an ``x`` without variance. Inputs and errors are those of ``cca``.

    Source: Raghu et al., *SVCCA*, section 4.3.
    """
    pair = as_pair(x, logits)
    white = whiten(pair.xx, delta=delta)
    warn_if_few_samples(int(pair.samples), white.shape[1], 1)
    variance = pair.yy.diagonal()
    varies = variance > 0
    explained = (white.T @ pair.xy).norm(dim=0) / torch.where(varies, variance, 1.0).sqrt()
    return torch.where(varies, explained.clamp(0, 1), torch.nan)


def correlate(pair: PairMoments, x_white: Tensor, y_white: Tensor) -> CCA:
    """Return CCA given whitening directions of both sides, which many pairs may share."""
    left, correlations, right = torch.linalg.svd(x_white.T @ pair.xy @ y_white, full_matrices=False)
    warn_if_few_samples(int(pair.samples), x_white.shape[1], y_white.shape[1])
    return CCA(
        correlations=correlations.clamp(0, 1),
        x_directions=x_white @ left,
        y_directions=y_white @ right.mH,
        x_kept=x_white.shape[1],
        y_kept=y_white.shape[1],
    )


def whiten(scatter: Tensor, *, delta: float | None = None) -> Tensor:
    """Return directions (features, kept) whose values over the samples are uncorrelated with sum of squares 1."""
    if delta is not None:
        check_delta(delta)
    if not scatter.isfinite().all():
        raise ValueError("Expected finite moments, got NaN or infinity among them.")
    scale = unit_scale(scatter.diagonal()) if delta is None else torch.ones_like(scatter[0])
    eigenvalues, vectors = torch.linalg.eigh(scale[:, None] * scatter * scale)
    eigenvalues, vectors = eigenvalues.flip(0), vectors.flip(1)
    kept = kept_directions(eigenvalues, delta=delta)
    white: Tensor = scale[:, None] * vectors[:, :kept] * eigenvalues[:kept].rsqrt()
    return white


def unit_scale(variance: Float[Tensor, " features"]) -> Float[Tensor, " features"]:
    """Return what brings features of such ``variance``, or sum of squares, to 1, and constant ones to 0."""
    varies = variance > CONSTANT * variance.max() if len(variance) else variance > 0
    return torch.where(varies, variance, torch.inf).rsqrt()


def kept_directions(eigenvalues: Tensor, *, delta: float | None) -> int:
    """Return how many of ``eigenvalues``, largest first, are above residue and, with ``delta``, needed to reach it."""
    if not len(eigenvalues) or eigenvalues[0] <= 0:
        return 0
    residue = max(RESIDUE, len(eigenvalues) * torch.finfo(torch.float64).eps) * eigenvalues[0]
    rank = int((eigenvalues > residue).sum())
    return rank if delta is None else min(rank, intrinsic_dimension(eigenvalues, delta=delta))


def _weighted_mean(correlations: Tensor, projections: Float[Tensor, "features pairs"]) -> Tensor:
    """Return the mean of ``correlations``, each weighted by the absolute ``projections`` on its direction.

    The projections of a feature on an orthonormal basis of m directions, turned at random, are its length within their
    span times the coordinates of a random point on the sphere, whose mean size is Γ(m/2) / (√π Γ((m + 1)/2)).
    """
    if not len(correlations):
        return correlations.new_tensor(torch.nan)
    tie = torch.nn.functional.pad(correlations.diff() < -TIE, (1, 0)).cumsum(0)
    count = tie.bincount().to(correlations)
    lengths = projections.new_zeros(len(projections), len(count)).index_add_(1, tie, projections.square()).sqrt()
    shrink = (torch.lgamma(count / 2) - torch.lgamma((count + 1) / 2)).exp() * count / torch.pi**0.5
    weights = lengths.sum(0) * shrink
    means = torch.zeros_like(count).index_add_(0, tie, correlations) / count
    mean: Tensor = (weights * means).sum() / weights.sum()
    return mean


def warn_if_few_samples(samples: int, x_kept: int, y_kept: int) -> None:
    """Warn where correlations of so many directions of ``samples`` say nothing."""
    # Centred values of n samples live in n − 1 dimensions, where subspaces of k and m dimensions must intersect in
    # k + m − (n − 1) of them: those correlations are 1 for any data.
    forced = min(x_kept + y_kept - (samples - 1), x_kept, y_kept)
    if forced > 0:
        warnings.warn(
            f"{samples} samples are too few for {x_kept} and {y_kept} directions: {forced} of their"
            f" {min(x_kept, y_kept)} canonical correlations are 1 whatever the data. Take more samples"
            f" (several times {x_kept + y_kept}) or a lower `delta`.",
            stacklevel=4,
        )
