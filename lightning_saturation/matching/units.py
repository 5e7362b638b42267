"""Which unit of one network does what a unit of the other does: their correlations, one-to-one and best partners."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from lightning_saturation.covariance.moments import Moments, moments
from lightning_saturation.shapes import Float, Int
from lightning_saturation.similarity.pairs import PairMoments, pair_moments


class Matching(NamedTuple):
    """For every unit of one side its partner on the other and their correlation; −1 and NaN for a unit without one.

    In a bipartite matching ``x_partner`` and ``y_partner`` are each other's inverse; in a semi-matching each is the
    best partner, and several units may share one.
    """

    y_partner: Int[Tensor, " x_units"]
    y_correlation: Float[Tensor, " x_units"]
    x_partner: Int[Tensor, " y_units"]
    x_correlation: Float[Tensor, " y_units"]


def unit_correlation(
    x: Float[Tensor, "x_samples x_units"] | PairMoments | Moments, y: Float[Tensor, "y_samples y_units"] | None = None
) -> Float[Tensor, "x_units y_units"]:
    """Return the correlation of every unit of ``x`` with every unit of ``y``, or of ``x`` where ``y`` is None.

    Takes rows of the same samples or their moments (``Moments`` of one side, ``PairMoments`` of both). A constant unit
    correlates with nothing: 0, not NaN. Raises ``ValueError`` for rows of different samples.

    Source: Li et al., *Convergent learning*, 2016, section 2.

    >>> unit_correlation(torch.tensor([[0.0, 1.0], [1.0, 0.0]])).round(decimals=9)
    tensor([[ 1., -1.],
            [-1.,  1.]], dtype=torch.float64)
    """
    if isinstance(x, PairMoments):
        scatter, x_variance, y_variance = x.xy, x.xx.diagonal(), x.yy.diagonal()
    elif y is None:
        scatter = (x if isinstance(x, Moments) else moments(x)).scatter
        x_variance = y_variance = scatter.diagonal()
    elif isinstance(x, Moments):
        raise TypeError("Expected rows `x` beside rows `y`; moments of both sides are `PairMoments`.")
    else:
        return unit_correlation(pair_moments(x, y))
    # One deviation after the other: their product is zero or infinite where the correlation is not.
    x_deviation, y_deviation = (torch.where(v > 0, v, torch.inf).sqrt() for v in (x_variance, y_variance))
    return (scatter / x_deviation[:, None] / y_deviation).clamp(-1, 1)


def match_units(
    correlation: Float[Tensor, "x_units y_units"],
    *,
    method: Literal["bipartite", "semi"] = "bipartite",
    exclude_self: bool = False,
    held_out: Float[Tensor, "x_units y_units"] | None = None,
) -> Matching:
    """Return which unit of ``y`` goes with which unit of ``x``, given their ``correlation``.

    ``"bipartite"`` is the one-to-one assignment with the largest sum of correlations; ``"semi"`` gives
    every unit its best partner, in both directions. ``exclude_self`` keeps a unit from being its own partner, for a
    correlation within one network. With ``held_out``, the correlations of the same units over other samples, partners
    are still those of ``correlation``, and their correlations come from there: the best of many is flattered by what
    it was chosen by. Raises ``ValueError`` for another method, NaN, ``exclude_self`` of a matrix that is not square, or
    ``held_out`` of another shape.

    Source: Li et al., *Convergent learning*, 2016, sections 3.1 and 3.2.

    >>> match_units(torch.tensor([[0.1, 0.9], [0.2, 0.8]]), method="bipartite").y_partner
    tensor([1, 0])
    >>> match_units(torch.tensor([[0.1, 0.9], [0.2, 0.8]]), method="semi").y_partner
    tensor([1, 1])
    """
    if method not in ("bipartite", "semi"):
        raise ValueError(f"Expected `method` 'bipartite' or 'semi', got {method!r}.")
    if correlation.isnan().any():
        raise ValueError("Expected a `correlation` without NaN.")
    if held_out is not None and held_out.shape != correlation.shape:
        raise ValueError(
            f"Expected `held_out` of the shape of `correlation`, {tuple(correlation.shape)}, got"
            f" {tuple(held_out.shape)}."
        )
    scores = correlation.detach().double()
    if exclude_self:
        if scores.shape[0] != scores.shape[1]:
            raise ValueError(f"Expected a square `correlation` with `exclude_self`, got {tuple(scores.shape)}.")
        # Correlations lie in [−1, 1]: any assignment that avoids the diagonal beats one that does not.
        scores = scores.clone().fill_diagonal_(-2.0 * (len(scores) + 1))
    found = _semi(scores) if method == "semi" else _bipartite(scores)
    return found if held_out is None else _seen_in(held_out.detach().double(), found)


def _seen_in(correlation: Tensor, found: Matching) -> Matching:
    """Return the partners of ``found`` with their ``correlation``."""
    values = []
    for partners, matrix in ((found.y_partner, correlation), (found.x_partner, correlation.T)):
        own = matrix.gather(1, partners.clamp(min=0)[:, None])[:, 0]
        values.append(torch.where(partners >= 0, own, torch.nan))
    return Matching(found.y_partner, values[0], found.x_partner, values[1])


def _semi(scores: Tensor) -> Matching:
    by_x, by_y = scores.max(dim=1), scores.max(dim=0)
    return Matching(by_x.indices, by_x.values, by_y.indices, by_y.values)


def _bipartite(scores: Tensor) -> Matching:
    rows, columns = (torch.from_numpy(index) for index in linear_sum_assignment(scores.cpu().numpy(), maximize=True))
    rows, columns = rows.to(scores.device), columns.to(scores.device)
    pairs = scores[rows, columns]
    partners = [torch.full((count,), -1, device=scores.device) for count in scores.shape]
    values = [torch.full_like(partner, torch.nan, dtype=torch.float64) for partner in partners]
    partners[0][rows], partners[1][columns] = columns, rows
    values[0][rows], values[1][columns] = pairs, pairs
    return Matching(partners[0], values[0], partners[1], values[1])
