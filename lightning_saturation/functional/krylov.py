"""A growing block Krylov space of a symmetric matrix and its Ritz pairs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_saturation.functional.shapes import Float


class Ritz(NamedTuple):
    """Ritz values, descending, and the norms of their residuals."""

    values: Float[Tensor, " size"]
    residuals: Float[Tensor, " size"]


class BlockKrylov:
    """An orthonormal basis of ``span(AV, A²V, …)`` that grows block by block, with the products ``A @ basis``.

    Blocks make every product a matrix product; each new block is orthogonalised twice against all others, so that the
    basis stays orthonormal to rounding. The first block ``V`` comes from a generator of its own on the CPU: the same
    matrix gives the same basis, and nobody else's random numbers move. Vectors are rows.

    Source: Golub and Underwood, *The block Lanczos method for computing eigenvalues*, 1977.
    """

    def __init__(self, matrix: Float[Tensor, "features features"], *, limit: int, block: int | None = None) -> None:
        features = len(matrix)
        self.matrix = matrix
        self.block = block or min(max(features // 64, 16), 128)
        self.limit = max(min(limit, features - self.block) // self.block * self.block, 0)
        self._basis = matrix.new_empty(self.limit, features)
        self._products = matrix.new_empty(self.limit, features)
        self._projected = matrix.new_zeros(self.limit, self.limit)
        self.size, self.captured, self.last_gain = 0, 0.0, 0.0
        generator = torch.Generator().manual_seed(0)
        start = torch.randn(self.block, features, generator=generator, dtype=torch.float64).to(matrix)
        self._next, self._coupling = _orthonormal(start @ matrix)

    def grow(self) -> bool:
        """Take in one more block; return False where the limit leaves no room for it."""
        old, new = self.size, self.size + self.block
        if new > self.limit:
            return False
        products = torch.mm(self._next, self.matrix, out=self._products[old:new])
        self._basis[old:new], self.size = self._next, new
        basis = self._basis[:new]
        projection = products @ basis.T
        self._projected[old:new, :new], self._projected[:new, old:new] = projection, projection.T
        self.last_gain = float(projection[:, old:].trace())
        self.captured += self.last_gain
        rest = torch.addmm(products, projection, basis, alpha=-1)
        self._next, self._coupling = _orthonormal(rest)
        # What is left of a nearly dependent direction is rounding noise, clean only once it has been cleaned at unit
        # length; for all others this is the second pass that keeps a Gram-Schmidt basis orthonormal.
        cleaned = self._next.addmm_(self._next @ basis.T, basis, alpha=-1)
        self._next, _ = _orthonormal(cleaned)
        return True

    def ritz(self) -> Ritz:
        """Return all Ritz values with the residual norms that the recurrence promises."""
        values, self._vectors = torch.linalg.eigh(self._projected[: self.size, : self.size])
        residuals = (self._coupling @ self._vectors[-self.block :]).norm(dim=0)
        return Ritz(values.flip(0), residuals.flip(0))

    def pairs(self, count: int) -> tuple[Tensor, Tensor]:
        """Return the ``count`` leading Ritz vectors of the last ``ritz()``, as rows, and their products with ``A``."""
        vectors = self._vectors[:, -count:].T
        return vectors @ self._basis[: self.size], vectors @ self._products[: self.size]


def _orthonormal(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return orthonormal rows ``Q`` of the same span, and ``R`` with ``rows = Rᵀ Q``."""
    q, r = torch.linalg.qr(rows.T)
    return q.T.contiguous(), r
