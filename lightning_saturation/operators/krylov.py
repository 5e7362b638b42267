"""The largest eigenvalues of an operator, and damped Chebyshev moments of all, from nothing but its products."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from scipy.sparse import linalg
from torch import Tensor

from lightning_saturation.shapes import Float


def jackson_damping(degree: int) -> Float[Tensor, " moments"]:
    """Return Jackson's factors for the moments 0 to ``degree``: the kernel that keeps a density nonnegative.

    Undamped, a step cut off at a finite degree rings: counts leak to where no eigenvalue is, even negative ones.

    Source: Weiße et al., *The kernel polynomial method*, 2006, equation 71.
    """
    n = degree + 2
    angle = math.pi * torch.arange(degree + 1, dtype=torch.float64) / n
    steps = n - torch.arange(degree + 1, dtype=torch.float64)
    return (steps * angle.cos() + angle.sin() / math.tan(math.pi / n)) / n


def chebyshev_moments(
    product: Callable[[Tensor], Tensor], probes: Float[Tensor, "probes size"], degree: int
) -> Iterator[Float[Tensor, "probes two"]]:
    """Yield the moments ``⟨x, T_k(A) x⟩`` of each probe x, two at a time (k = 0, 1, then 2, 3, …), up to ``degree``.

    ``product`` applies A, whose eigenvalues lie in [−1, 1], to a block of rows. Two moments cost one product:
    ``T_{2k} = 2 T_k² − 1`` and ``T_{2k+1} = 2 T_k T_{k+1} − T_1``.
    """
    before, now = probes, product(probes)
    zeroth, first = _dots(probes, probes), _dots(probes, now)
    yield torch.stack([zeroth, first], dim=1)
    for _ in range(degree // 2):
        after = product(now).mul_(2).sub_(before)
        yield torch.stack([2 * _dots(now, now) - zeroth, 2 * _dots(now, after) - first], dim=1)
        before, now = now, after


def cumulative_counts(
    moments: Float[Tensor, "probes moments"], points: Float[Tensor, " points"], *, damped: bool = True
) -> Float[Tensor, "probes points"]:
    """Return how much of each probe's spectral mass lies below each of ``points`` (clamped to [−1, 1]).

    With Jackson damping the result never falls from one point to the next, apart from rounding.
    """
    degree = moments.shape[1] - 1
    weights = jackson_damping(degree) if damped else torch.ones(degree + 1, dtype=torch.float64)
    angle = points.clamp(-1, 1).arccos()
    orders = torch.arange(1, degree + 1, dtype=torch.float64)
    steps = (angle[:, None] * orders).sin() * (-2 / math.pi) * (weights[1:] / orders)
    return torch.addmm(moments[:, :1] * (1 - angle / math.pi), moments[:, 1:], steps.T)


def _dots(x: Tensor, y: Tensor) -> Tensor:
    dots: Tensor = torch.linalg.vecdot(x, y)
    return dots.double().cpu()


def largest_eigenpairs(
    product: Callable[[Tensor], Tensor], start: Float[Tensor, " size"], count: int, *, tolerance: float = 1e-8
) -> tuple[Float[Tensor, " count"], Float[Tensor, "count size"]]:
    """Return the ``count`` largest eigenvalues, largest first, and orthonormal eigenvectors (rows).

    ``product`` applies a symmetric positive operator to a block (vectors, size). ``start`` is the first Krylov vector
    and decides everything random. Where ARPACK gives up on some eigenpairs, those that converged come back, possibly
    none.

    Source: *Evolution of Eigenvalue Decay in Deep Networks*, section 2.2; Lehoucq, Sorensen and Yang, 1998.
    """
    size = len(start)
    image = product(start[None])[0]
    if not bool(torch.isfinite(image).all()):
        raise ValueError("Expected an operator with finite products, got NaN or infinity.")
    if not bool(image.any()):  # a random vector is mapped to zero by the zero operator only, which ARPACK refuses
        return torch.zeros(1, dtype=torch.float64), (start / start.norm())[None]

    def matvec(x: Any) -> Any:
        row = torch.as_tensor(x.reshape(1, -1), device=start.device, dtype=start.dtype)
        return product(row)[0].cpu().numpy()

    first = start.cpu().numpy()
    operator = linalg.LinearOperator((size, size), matvec=matvec, dtype=first.dtype)
    options: dict[str, Any] = {"k": count, "which": "LA", "ncv": min(size, 2 * count + 32), "v0": first}
    # SciPy 1.17 draws restarts from a generator of its own; older ones from LAPACK's, which is seeded by itself.
    if "rng" in inspect.signature(linalg.eigsh).parameters:
        options["rng"] = 0
    try:
        values, vectors = linalg.eigsh(operator, tol=tolerance, **options)
    except linalg.ArpackNoConvergence as failure:
        values, vectors = failure.eigenvalues, failure.eigenvectors
    order = values.argsort()[::-1].copy()
    basis = torch.as_tensor(vectors[:, order].copy(), dtype=start.dtype)
    if basis.shape[1]:
        basis = torch.linalg.qr(basis).Q
    return torch.as_tensor(values[order].copy()).double(), basis.T.contiguous().to(start.device)
