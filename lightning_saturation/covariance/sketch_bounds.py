"""What a sketch proves about the spectrum it stands for, and its best guess."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_saturation.covariance.sketch import Sketch
from lightning_saturation.covariance.spectrum import check_delta
from lightning_saturation.shapes import Float


class Bracket(NamedTuple):
    """Certified bounds on an intrinsic dimension, both ends possible."""

    lower: int
    upper: int


def dimension_bracket(sketch: Sketch, *, delta: float = 0.99) -> Bracket:
    """Return bounds on the intrinsic dimension of all rows that ``sketch`` has seen; (0, 0) without any variance.

    The lower end is 0, too, where all there is may be rounding.

    Let ``g_i`` be the eigenvalues of ``BᵀB``, ``Δ`` the shrinkage, ``T`` the exact trace and ``ρ = T − Σ g_i`` what the
    sketch has let go. With ``0 ⪯ M − BᵀB ⪯ ΔI`` of trace ``ρ`` the sum ``S_j`` of the ``j`` largest eigenvalues of the
    scatter ``M`` has (Weyl, Ky Fan) ``L_j = Σ_{i≤j} g_i ≤ S_j ≤ L_j + min(jΔ, ρ)``. ``M`` has rank ``m`` at most (the
    features, or the rows less one), so what is left after ``r`` directions fills the next ones at least evenly:
    ``S_j ≥ L_r + (T − L_r)(j − r)/(m − r)`` for every ``r ≤ j``. The first ``j`` at which a bound reaches ``δT`` gives
    the ends; both leave room for the rounding of the sums. Without any loss the ends meet, except at a tie.

    Source: Ghashami et al., *Frequent Directions*, 2016, for the spectral bound.
    """
    check_delta(delta)
    total, shrinkage, rounding = (float(x) for x in (sketch.trace, sketch.shrinkage, sketch.rounding))
    if not math.isfinite(total):
        raise ValueError("Expected a finite sketch, got NaN or infinity in it.")
    features = sketch.rows.shape[1]
    rank = max(1, min(features, int(sketch.samples) - 1))
    slack = features * torch.finfo(torch.float64).eps * total
    if total <= 0:
        return Bracket(0, 0)
    threshold = delta * total - slack
    sums = [0.0, *_squares(sketch).cumsum(0).tolist()]
    lost = max(total - sums[-1], 0.0)
    return Bracket(
        _first_possible(sums, shrinkage, lost, threshold - rounding, rank) if total > rounding else 0,
        _surely_reached(sums, total, threshold + rounding, rank),
    )


def estimated_eigenvalues(sketch: Sketch) -> Float[Tensor, " features"]:
    """Return a guess at the covariance's eigenvalues (features,), largest first, with the exact sum.

    Every direction that the sketch keeps gets its shrinkage back, and what else it has let go is spread evenly over all
    others. Where the intrinsic dimension is well within the sketch, this puts it at the lower end of its bracket, which
    is the end that is close; where it is not, the bracket says so.

    Source: Desai, Ghashami and Phillips, *Improved practical matrix sketching with guarantees*, 2016 (compensative
    Frequent Directions).
    """
    features, samples = sketch.rows.shape[1], int(sketch.samples)
    squares = _squares(sketch)[:features]
    lost = (sketch.trace.to(squares) - squares.sum()).clamp(min=0)
    back = torch.minimum(sketch.shrinkage.to(squares), lost / max(len(squares), 1))
    rank = max(1, min(features, samples - 1))
    kept = squares + torch.where(squares > 0, back, 0.0)
    rest = (sketch.trace.to(squares) - kept.sum()).clamp(min=0)
    others = max(rank - len(squares), 0)
    spectrum = torch.zeros(features, dtype=torch.float64)
    spectrum[: len(kept)] = kept
    if others:
        spectrum[len(kept) : len(kept) + others] = rest / others
    elif float(kept.sum()) > 0:
        spectrum *= sketch.trace.to(kept) / kept.sum()
    return spectrum.sort(descending=True).values / max(samples - 1, 1)


def _squares(sketch: Sketch) -> Tensor:
    """Return the eigenvalues of ``BᵀB``, largest first, on the CPU."""
    return sketch.rows.square().sum(1).cpu().sort(descending=True).values


def _first_possible(sums: list[float], shrinkage: float, lost: float, threshold: float, rank: int) -> int:
    """Return the least number of directions whose eigenvalues may reach ``threshold``."""
    for j, held in enumerate(sums):
        if held + min(j * shrinkage, lost) >= threshold:
            return min(max(j, 1), rank)
    # Beyond the sketch every further eigenvalue is at most the shrinkage.
    return rank if shrinkage <= 0 else min(max(math.ceil((threshold - sums[-1]) / shrinkage), len(sums)), rank)


def _surely_reached(sums: list[float], total: float, threshold: float, rank: int) -> int:
    """Return the least number of directions whose eigenvalues cannot fail to reach ``threshold``."""
    best = rank
    for r, held in enumerate(sums[: rank + 1]):
        if held >= threshold:
            return max(min(best, r), 1)
        if r < rank and threshold < total:
            best = min(best, r + math.ceil((threshold - held) / (total - held) * (rank - r)))
    return best
