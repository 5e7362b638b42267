"""What a spectrum needs of a linear operator, and a plain matrix as one."""

from __future__ import annotations

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
        ...

    @property
    def dtype(self) -> torch.dtype:
        """The type of vectors."""
        ...

    @property
    def device(self) -> torch.device:
        """Where vectors are."""
        ...

    def matvec(self, x: Tensor) -> Tensor:
        """Return H x, for a vector (inputs,) or a block (vectors, inputs)."""
        ...

    def rmatvec(self, y: Tensor) -> Tensor:
        """Return Hᵀ y, for a vector (outputs,) or a block (vectors, outputs)."""
        ...

    def trace(self) -> float | None:
        """Return the trace of HHᵀ, or None where no formula is known."""
        ...


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
