"""Joint moments of two sets of features over the same samples: what every similarity here is computed from."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_saturation.covariance.moments import Moments, moments
from lightning_saturation.shapes import Float, Int


class PairMoments(NamedTuple):
    """Centred scatters of rows ``x`` and ``y`` of the same samples, float64.

    ``lengths`` (2, 2) holds the sums over samples of the products of ``‖x − x̄‖²`` and ``‖y − ȳ‖²``; only the debiased
    kernel alignment needs them, None stands for "not kept".
    """

    samples: Int[Tensor, ""]
    xx: Float[Tensor, "x_features x_features"]
    yy: Float[Tensor, "y_features y_features"]
    xy: Float[Tensor, "x_features y_features"]
    lengths: Float[Tensor, "2 2"] | None = None


def as_pair(x: Tensor | PairMoments, y: Tensor | None) -> PairMoments:
    """Return ``x`` if it holds moments already, else the moments of rows ``x`` and ``y``."""
    if isinstance(x, PairMoments):
        if y is not None:
            raise TypeError("Expected no `y` beside moments in `x`, which hold both sides.")
        return x
    if y is None:
        raise TypeError("Expected rows `y` (samples, features) beside rows `x`.")
    return pair_moments(x, y)


def pair_moments(x: Float[Tensor, "x_samples x_features"], y: Float[Tensor, "y_samples y_features"]) -> PairMoments:
    """Return the joint moments of ``x`` and ``y``, whose rows belong to the same samples.

    Samples with NaN or infinity on either side are left out, with a warning. Raises ``ValueError`` for rows that are
    not two-dimensional or not equally many.
    """
    check_rows(x, y)
    x, y = x.detach().double(), y.detach().double()
    finite = x.isfinite().all(1) & y.isfinite().all(1)
    origin = torch.cat([row_mean(x, finite), row_mean(y, finite)])
    joint = moments(joint_rows(x, y, origin=origin))
    if (missing := len(x) - int(joint.samples)) > 0:
        warnings.warn(f"{missing} of {len(x)} samples hold NaN or infinity and are left out.", stacklevel=3)
    return split_moments(joint, x_features=x.shape[1], origin=origin)


def check_rows(x: Tensor, y: Tensor) -> None:
    """Raise a ``ValueError`` unless ``x`` and ``y`` are rows of the same number of samples."""
    for name, rows in (("x", x), ("y", y)):
        if rows.ndim != 2:
            raise ValueError(f"Expected `{name}` of shape (samples, features), got {tuple(rows.shape)}.")
    if len(x) != len(y):
        raise ValueError(f"Expected `x` and `y` with rows of the same samples, got {len(x)} and {len(y)} rows.")


def row_mean(rows: Tensor, finite: Tensor) -> Tensor:
    """Return the mean of the ``finite`` ones of ``rows``, zero without any; nothing waits for the device."""
    return torch.where(finite[:, None], rows, 0.0).sum(0) / finite.sum().clamp(min=1)


def joint_rows(x: Tensor, y: Tensor, *, origin: Tensor) -> Tensor:
    """Return float64 rows ``[x, ‖x − x₀‖², y, ‖y − y₀‖²]`` for ``origin`` ``[x₀, y₀]``.

    The squared lengths about any other origin are affine in these features, so that their moments merge and move
    exactly: what the debiased estimator needs of fourth moments is inside the second moments of these rows.
    """
    sides = ((x.detach().double(), origin[: x.shape[1]]), (y.detach().double(), origin[x.shape[1] :]))
    return torch.cat([part for rows, at in sides for part in (rows, (rows - at).square().sum(1, keepdim=True))], dim=1)


def move_lengths(
    scatter: Float[Tensor, "rows columns"], left: Float[Tensor, " left"], right: Float[Tensor, " right"]
) -> Float[Tensor, "rows columns"]:
    """Return ``scatter`` of two sides with lengths as if their origins had been moved by ``−left`` and ``−right``.

    ``‖(x − x₀) + s‖² = ‖x − x₀‖² + 2 s·(x − x₀) + ‖s‖²``: a rank-one change of the last row or column.
    """
    moved = scatter.clone()
    moved[-1] += 2 * left @ moved[:-1]
    moved[:, -1] += 2 * moved[:, :-1] @ right
    return moved


def move_origin(joint: Moments, *, x_features: int, origin: Tensor, to: Tensor) -> Moments:
    """Return the moments of ``joint_rows`` about another origin."""
    split, shift = x_features + 1, origin - to
    sides = ((slice(0, split), slice(0, x_features)), (slice(split, None), slice(x_features, None)))
    scatter, mean = torch.empty_like(joint.scatter), joint.mean.clone()
    for rows, left in sides:
        for columns, right in sides:
            scatter[rows, columns] = move_lengths(joint.scatter[rows, columns], shift[left], shift[right])
        away = joint.mean[rows][:-1] - origin[left]
        mean[rows][-1] += 2 * away @ shift[left] + shift[left] @ shift[left]
    return Moments(joint.samples, mean, scatter)


def split_moments(joint: Moments, *, x_features: int, origin: Tensor | None = None) -> PairMoments:
    """Return the pair that moments of rows ``[x, y]`` stand for, or those of ``joint_rows`` about ``origin``."""
    if origin is None:
        split, s = x_features, joint.scatter
        return PairMoments(joint.samples, s[:split, :split], s[split:, split:], s[:split, split:])
    split = x_features + 1
    mean = torch.cat([joint.mean[:x_features], joint.mean[split:-1]])
    about_mean = move_origin(joint, x_features=x_features, origin=origin, to=mean)
    s = about_mean.scatter
    return pair_of_scatters(joint.samples, s[:split, :split], s[split:, split:], s[:split, split:])


def pair_of_scatters(samples: Tensor, xx: Tensor, yy: Tensor, xy: Tensor) -> PairMoments:
    """Return the pair of three scatters whose last row and column are lengths about the means."""
    x_scatter, y_scatter = xx[:-1, :-1], yy[:-1, :-1]
    totals = torch.stack([x_scatter.trace(), y_scatter.trace()])
    centred = torch.stack([xx[-1, -1], xy[-1, -1], xy[-1, -1], yy[-1, -1]]).view(2, 2)
    lengths = centred + torch.outer(totals, totals) / samples.clamp(min=1)
    return PairMoments(samples, x_scatter, y_scatter, xy[:-1, :-1], lengths)
