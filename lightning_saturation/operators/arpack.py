"""The largest eigenvalues of an operator, by ARPACK."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from scipy.sparse import linalg
from torch import Tensor

from lightning_saturation.shapes import Float


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
