"""What a spectrum needs of a linear operator: its products, a plain matrix as one, and the smaller Gram matrix."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from lightning_saturation.shapes import Float


@runtime_checkable
class LinearMap(Protocol):
    """What a spectrum needs of an operator H: its shape and its two products."""

    @property
    def shape(self) -> tuple[int, int]:
        """Dimensions (outputs, inputs)."""

    @property
    def dtype(self) -> torch.dtype:
        """The type of vectors."""

    @property
    def device(self) -> torch.device:
        """Where vectors are."""

    def matvec(self, x: Tensor) -> Tensor:
        """Return H x, for a vector (inputs,) or a block (vectors, inputs)."""

    def rmatvec(self, y: Tensor) -> Tensor:
        """Return Hᵀ y, for a vector (outputs,) or a block (vectors, outputs)."""

    def trace(self) -> float | None:
        """Return the trace of HHᵀ, or None where no formula is known."""


class MatrixOperator:
    """A matrix (outputs, inputs) as an operator."""

    def __init__(self, matrix: Float[Tensor, "outputs inputs"]) -> None:
        self.matrix = matrix
        self.shape: tuple[int, int] = (matrix.shape[0], matrix.shape[1])
        self.dtype, self.device = matrix.dtype, matrix.device

    def matvec(self, x: Tensor) -> Tensor:
        """Return H x, for a vector (inputs,) or a block (vectors, inputs)."""
        return x @ self.matrix.T

    def rmatvec(self, y: Tensor) -> Tensor:
        """Return Hᵀ y, for a vector (outputs,) or a block (vectors, outputs)."""
        return y @ self.matrix

    def trace(self) -> float:
        """Return the trace of HHᵀ, the sum of squared singular values."""
        return float(self.matrix.double().square().sum())


class OutOfTime(Exception):  # noqa: N818 - a signal between two functions, never an error that a user sees
    """The deadline has passed."""


class Gram:
    """HHᵀ or HᵀH, whichever is smaller, on blocks of rows (vectors, size)."""

    def __init__(
        self,
        operator: LinearMap,
        *,
        block: int = 16,
        deadline: float | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        outputs, inputs = operator.shape
        wide = outputs < inputs
        self.size = min(outputs, inputs)
        self.operator, self.block, self.deadline, self.progress = operator, block, deadline, progress
        self.first = operator.rmatvec if wide else operator.matvec
        self.second = operator.matvec if wide else operator.rmatvec
        self.products = 0

    def __call__(self, rows: Float[Tensor, "vectors size"]) -> Float[Tensor, "vectors size"]:
        """Return every row multiplied, ``block`` rows at a time."""
        return torch.cat([self._apply(chunk) for chunk in torch.split(rows, self.block)])

    def _apply(self, rows: Tensor) -> Tensor:
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise OutOfTime
        result = self.second(self.first(rows))
        self.products += len(rows)
        if self.progress is not None:
            self.progress(len(rows))
        return result

    def dense(self) -> Float[Tensor, "size size"]:
        """Return the matrix itself, symmetric, float64 on the CPU."""
        matrix = torch.empty(self.size, self.size, dtype=torch.float64)
        try:
            for start in range(0, self.size, self.block):
                stop = min(start + self.block, self.size)
                rows = torch.zeros(stop - start, self.size, dtype=self.operator.dtype, device=self.operator.device)
                rows[torch.arange(stop - start), torch.arange(start, stop)] = 1
                matrix[start:stop] = self._apply(rows)
        except OutOfTime as stop_:
            raise TimeoutError(f"Out of time after {self.products} of {self.size} rows of the matrix.") from stop_
        if not bool(torch.isfinite(matrix).all()):
            raise ValueError("Expected an operator with finite products, got NaN or infinity.")
        return (matrix + matrix.T).div_(2)

    def probe(self, seed: int, index: int) -> Float[Tensor, " size"]:
        """Return random signs that depend on ``seed`` and ``index`` alone, the same on every device."""
        generator = torch.Generator().manual_seed((seed * 1_000_003 + index) % 2**63)
        signs = torch.randint(0, 2, (self.size,), generator=generator).mul_(2).sub_(1)
        return signs.to(self.operator.device, self.operator.dtype)

    @staticmethod
    def without(rows: Float[Tensor, "vectors size"], basis: Float[Tensor, "directions size"]) -> Tensor:
        """Return ``rows`` without their parts along the orthonormal ``basis``, in place."""
        return rows.sub_((rows @ basis.T) @ basis)

    def exact_seconds(self) -> float:
        """Return a forecast of the exact path's time: an eigenproblem cannot be interrupted, so it is foreseen."""
        rows = torch.zeros(min(self.block, self.size), self.size)
        clock = time.monotonic()
        self.second(self.first(rows.to(self.operator.device, self.operator.dtype)))
        forming = (time.monotonic() - clock) * self.size / len(rows)
        return forming + eigen_seconds(self.size**3)


def eigen_seconds(work: float) -> float:
    """Return a forecast of the time for eigenproblems of so much ``work``, n³ for one of size n."""
    small = 256
    noise = torch.randn(small, small, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    clock = time.monotonic()
    torch.linalg.eigvalsh(noise + noise.T)
    # Three times: large problems run out of cache, and others may be using the machine.
    return 3 * (time.monotonic() - clock) * work / small**3
