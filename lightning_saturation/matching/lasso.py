"""How well sparse combinations of one network's units predict the other's units."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_saturation.covariance.moments import Moments
from lightning_saturation.matching.signs import search_signs
from lightning_saturation.matching.units import unit_correlation
from lightning_saturation.shapes import Float
from lightning_saturation.similarity.cca import whiten
from lightning_saturation.similarity.pairs import PairMoments, as_pair

# A unit is done when the duality gap certifies its objective, at most ½, to the first of these. It leaves the sweeps
# when `EVERY` of them lower the objective by less than the second: where units of x depend on each other linearly (a
# convolution's outputs have as many dimensions as its patch has pixels), sweeps stand still as much as 0.1 too high,
# and the search over signs takes over for what the gap has not certified to the third. Of 64 to 256 units of 27 to 75
# dimensions at decays from 1e-6 on, it left no gap above 2e-9.
GAP, STALL, CLOSE = 1e-9, 1e-10, 1e-8
EVERY = 10
SWEEPS = 300


class SparseMapping(NamedTuple):
    """One linear map of standardised units of ``x`` to standardised units of ``y`` for each decay.

    ``loss`` is half the mean squared error over samples and units, without the penalty: 0.5 is what predicting zero
    costs. Constant units are left out of it, and get no weights.
    """

    decay: Float[Tensor, " decays"]
    loss: Float[Tensor, " decays"]
    weights: Float[Tensor, "decays x_units y_units"]

    @property
    def used(self) -> Tensor:
        """Mean number of units of ``x`` that a unit of ``y`` is predicted from (decays,)."""
        return (self.weights != 0).sum(1).double().mean(1)


def sparse_mapping(
    x: Float[Tensor, "x_samples x_units"] | PairMoments,
    y: Float[Tensor, "y_samples y_units"] | None = None,
    *,
    decay: float | int | Sequence[float | int],
    held_out: PairMoments | None = None,
) -> SparseMapping:
    """Return the lasso maps from units of ``x`` to units of ``y`` for one or several L1 penalties ``decay`` at once.

    All units are standardised; each map minimises ``½ mean (y − x w)² + decay ‖w‖₁`` over the samples for every unit of
    ``y``, from the moments alone, so that the number of samples does not matter once they are taken. Decay 0 is least
    squares of least norm. ``x`` and ``y`` are rows of the same samples, or ``x`` holds their moments. With ``held_out``
    the loss is that of the same weights on other samples, whose units are standardised by themselves. Raises
    ``ValueError`` for a negative or infinite decay.

    Source: Li et al., *Convergent learning*, 2016, section 4, table 1.

    >>> x = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0], [3.0, 1.0]])
    >>> sparse_mapping(x, x, decay=[0.0, 0.1, 2.0]).loss.round(decimals=9)
    tensor([0.0000, 0.0050, 0.5000], dtype=torch.float64)
    """
    decays = [float(decay)] if isinstance(decay, (int, float)) else [float(d) for d in decay]
    if not all(0 <= d < math.inf for d in decays):
        raise ValueError(f"Expected finite, non-negative `decay`, got {decay}.")
    pair = as_pair(x, y)
    gram, target = _standardised(pair)
    found: dict[float, Tensor] = {0.0: _least_squares(gram, target)} if 0 in decays else {}
    warm = torch.zeros_like(target)
    for penalty in sorted({d for d in decays if d > 0}, reverse=True):
        warm = found[penalty] = _lasso(gram, target, penalty, warm)
    weights = torch.stack([found[d] for d in decays])
    judge = pair if held_out is None else held_out
    if held_out is not None:
        gram, target = _standardised(held_out)
    varies = judge.yy.diagonal() > 0
    # Half the mean squared error of each target unit, of unit variance.
    errors = 0.5 * (1 + (weights * (gram @ weights - 2 * target)).sum(1)).clamp(min=0)[:, varies]
    penalties = torch.tensor(decays, dtype=torch.float64, device=gram.device)
    return SparseMapping(penalties, errors.mean(1), weights)


def _standardised(pair: PairMoments) -> tuple[Tensor, Tensor]:
    """Return the products of the units of ``x`` with each other and with those of ``y``, all of unit variance."""
    return unit_correlation(Moments(pair.samples, pair.xx.diagonal(), pair.xx)), unit_correlation(pair)


def _least_squares(gram: Tensor, target: Tensor) -> Tensor:
    white = whiten(gram)
    # A constant unit is exactly zero in `gram` but only nearly so in its eigenvectors.
    return (white @ (white.T @ target)) * (gram.diagonal() > 0)[:, None]


def _lasso(gram: Tensor, target: Tensor, decay: float, start: Tensor) -> Tensor:
    """Return weights (x_units, y_units) by cyclic coordinate descent, all target units that have not converged at once.

    Source: Friedman, Hastie and Tibshirani, *Regularization paths for generalized linear models*, 2010, section 2.2.
    """
    weights = start.clone()
    active = torch.arange(target.shape[1], device=target.device)
    units = gram.diagonal().nonzero().flatten().tolist()
    before = torch.full_like(target[0], torch.inf)
    for sweep in range(1, SWEEPS + 1):
        now, goal = weights[:, active], target[:, active]
        for unit in units:
            # The diagonal of `gram` is 1, so the best value of one weight is its partial residual, shrunk.
            best = goal[unit] - gram[unit] @ now + now[unit]
            now[unit] = torch.nn.functional.softshrink(best, decay)
        weights[:, active] = now
        if sweep % EVERY == 0:
            gap, objective = _duality_gap(gram, goal, now, decay)
            going = (gap > GAP) & (before[active] - objective > STALL)
            before[active] = objective
            active = active[going]
            if not len(active):
                break
    gap, _ = _duality_gap(gram, target, weights, decay)
    for unit in (gap > CLOSE).nonzero().flatten().tolist():
        weights[:, unit] = search_signs(gram, target[:, unit], decay, weights[:, unit])
    gap, _ = _duality_gap(gram, target, weights, decay)
    if (left := int((gap > CLOSE).sum())) > 0:
        warnings.warn(
            f"{left} of {target.shape[1]} units did not converge at decay {decay}: their objective, half the mean"
            f" squared error and the penalty, may be {float(gap.max()):.1g} too high.",
            stacklevel=4,
        )
    return weights


def _duality_gap(gram: Tensor, target: Tensor, weights: Tensor, decay: float) -> tuple[Tensor, Tensor]:
    """Return by how much each unit's objective can exceed the optimum at most, and the objective."""
    fitted = gram @ weights
    residual = target - fitted  # what every unit of x still correlates with the error
    squared = (1 + (weights * (fitted - 2 * target)).sum(0)).clamp(min=0)
    aligned = 1 - (weights * target).sum(0)  # the error's product with the target
    scale = (decay / residual.abs().max(0).values).clamp(max=1)
    primal = 0.5 * squared + decay * weights.abs().sum(0)
    return primal - scale * aligned + 0.5 * scale.square() * squared, primal
