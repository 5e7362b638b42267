"""The lasso of one unit by a search over the signs of its weights, exact where coordinate descent stands still."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_saturation.shapes import Float

# What is added to the diagonal, at first: enough to solve for units that are copies of each other. Such a step is a
# descent all the same, as every step is taken only as far as it lowers the objective itself.
_RIDGE = 1e-13
_SETTLED = 1e-11  # by how much a slope may exceed the penalty
_STEPS = 20  # times the number of units; a few hundred steps do for most


def search_signs(
    gram: Float[Tensor, "units units"], target: Float[Tensor, " units"], decay: float, start: Float[Tensor, " units"]
) -> Float[Tensor, " units"]:
    """Return the weights ``w`` (units,) that minimise ``½ wᵀ gram w − targetᵀ w + decay ‖w‖₁``, from ``start``.

    For given signs the objective is quadratic: its minimum is one linear system in the weights that are not zero. On
    the way there the objective is lowest at the minimum or where a weight changes its sign, which becomes zero. Weights
    enter one at a time, the one with the steepest descent first. Ends in finitely many steps, as each one lowers the
    objective and signs do not come back; it stops where rounding is all that is left.

    Source: Lee, Battle, Raina and Ng, *Efficient sparse coding algorithms*, 2006, section 3 (feature-sign search).
    """
    weights, signs = start.clone(), start.sign()
    best = _objective(gram, target, decay, weights[:, None])[0]
    refused = gram.diagonal() <= 0
    for _ in range(_STEPS * len(target)):
        if bool(signs.any()):
            moved, lower = _step(gram, target, decay, weights, signs)
            if lower < best:
                weights, signs, best = moved, moved.sign(), lower
                continue
        # The weights that are not zero are at their minimum; only from there does a new one move the way of its sign.
        slope = gram @ weights - target
        steepness = torch.where((signs == 0) & ~refused, slope.abs() - decay, -torch.inf)
        steepest = int(steepness.argmax())
        if steepness[steepest] <= _SETTLED:
            break
        signs[steepest] = -slope[steepest].sign()
        moved, lower = _step(gram, target, decay, weights, signs)
        if lower < best:
            weights, signs, best, refused = moved, moved.sign(), lower, gram.diagonal() <= 0
        else:  # by rounding: another one may still help
            signs[steepest], refused[steepest] = 0.0, True
    return weights


def _step(gram: Tensor, target: Tensor, decay: float, weights: Tensor, signs: Tensor) -> tuple[Tensor, Tensor]:
    """Return the lowest point between ``weights`` and the minimum for ``signs``, and the objective there."""
    active = signs.nonzero().flatten()
    inner, now = gram[active][:, active], weights[active]
    system = inner + _RIDGE * torch.eye(len(active), dtype=gram.dtype, device=gram.device)
    solution = torch.linalg.solve(system, target[active] - decay * signs[active])
    way = solution - now
    crossing = -now / way
    inside = (crossing > 0) & (crossing < 1)
    lengths = torch.cat([crossing[inside], crossing.new_ones(1)])
    points = now[:, None] + way[:, None] * lengths
    where = inside.nonzero().flatten()
    points[where, torch.arange(len(where), device=points.device)] = 0.0
    values = _objective(inner, target[active], decay, points)
    lowest = int(values.argmin())
    moved = torch.zeros_like(weights)
    moved[active] = points[:, lowest]
    return moved, values[lowest]


def _objective(gram: Tensor, target: Tensor, decay: float, weights: Float[Tensor, "units points"]) -> Tensor:
    return (weights * (0.5 * (gram @ weights) - target[:, None])).sum(0) + decay * weights.abs().sum(0)
