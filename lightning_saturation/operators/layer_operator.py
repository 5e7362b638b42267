"""A layer as a linear operator on feature maps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import copy
from functools import partial
from typing import Any

import torch
from scipy.sparse import linalg
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parameter import is_lazy

from lightning_saturation.capture.hooks import CONVOLUTIONS
from lightning_saturation.operators.circular import circular_eigenvalues, circular_work
from lightning_saturation.operators.convolution_geometry import Geometry, convolution_geometry
from lightning_saturation.operators.linear_map import LinearMap, MatrixOperator
from lightning_saturation.shapes import Float

OPERATOR_LAYERS: tuple[type[nn.Module], ...] = (nn.Linear, *CONVOLUTIONS)


class LayerOperator:
    """``layer`` without its bias as a linear operator H on flattened inputs of ``input_shape`` (no batch dimension).

    For convolutions ``input_shape`` is (channels, *spatial), for ``nn.Linear`` (*positions, in_features). Any stride,
    padding, padding mode, dilation and grouping, and transposed convolutions. The weight is copied, so training may go
    on; ``dtype`` (float64 unless the device has none) is that of all products, which run where the layer is.

    Raises a ``TypeError`` for other layers and a ``ValueError`` for an input that does not fit, a lazy layer that has
    not run yet and weights that are not finite.

    Source: *Evolution of Eigenvalue Decay in Deep Networks*, section 2.1.

    >>> operator = LayerOperator(nn.Conv2d(3, 8, 3, stride=2), (3, 9, 9))
    >>> operator.shape
    (128, 243)
    """

    def __init__(self, layer: nn.Module, input_shape: Sequence[int], *, dtype: torch.dtype | None = None) -> None:
        if not isinstance(layer, OPERATOR_LAYERS):
            known = ", ".join(kind.__name__ for kind in OPERATOR_LAYERS)
            raise TypeError(f"Expected `layer` to be one of {known}, got {type(layer).__name__}.")
        # torch types every attribute of a module as a tensor or a module, so sizes are read past the type checker.
        sizes: Any = layer
        if is_lazy(sizes.weight):
            raise ValueError(f"Expected a `layer` whose weight has a size, got {layer}, which has not run yet.")
        weight: Tensor = sizes.weight.detach()
        if dtype is None:
            dtype = torch.float32 if weight.device.type == "mps" else torch.float64
        weight = weight.to(dtype, copy=True)
        if not bool(torch.isfinite(weight).all()):
            raise ValueError(f"Expected finite weights, got NaN or infinity in the weight of {layer}.")
        self.weight, self.dtype, self.device = weight, dtype, weight.device
        self.input_shape = tuple(int(size) for size in input_shape)
        self.groups = int(getattr(layer, "groups", 1))
        self._geometry: Geometry | None = None
        self._transposed = False
        if isinstance(layer, nn.Linear):
            self._check(layer, layer.in_features, -1, None)
            self.output_shape = (*self.input_shape[:-1], layer.out_features)
        else:
            dims = weight.ndim - 2
            self._check(layer, sizes.in_channels, 0, dims + 1)
            self._geometry, self._transposed = convolution_geometry(layer, self.input_shape[1:])
            spatial = self._geometry.inputs if self._transposed else self._geometry.outputs
            self.output_shape = (int(sizes.out_channels), *spatial)
        self.shape: tuple[int, int] = (math.prod(self.output_shape), math.prod(self.input_shape))

    def _check(self, layer: nn.Module, features: int, dim: int, ndim: int | None) -> None:
        shape = self.input_shape
        if not shape or (ndim is not None and len(shape) != ndim) or shape[dim] != features or min(shape) < 1:
            layout = "(channels, *spatial)" if ndim else "(*positions, features)"
            raise ValueError(f"Expected `input_shape` {layout} with {features} of them for {layer}, got {shape}.")

    def matvec(self, x: Float[Tensor, ...]) -> Float[Tensor, ...]:
        """Return H x, for a flat vector (inputs,) or a block (vectors, inputs)."""
        return self._apply(x, self.input_shape, self.shape[1], "x", adjoint=False)

    def rmatvec(self, y: Float[Tensor, ...]) -> Float[Tensor, ...]:
        """Return Hᵀ y, for a flat vector (outputs,) or a block (vectors, outputs)."""
        return self._apply(y, self.output_shape, self.shape[0], "y", adjoint=True)

    def _apply(self, x: Tensor, shape: tuple[int, ...], size: int, name: str, *, adjoint: bool) -> Tensor:
        if x.ndim not in (1, 2) or x.shape[-1] != size:
            raise ValueError(f"Expected `{name}` ({size},) or (vectors, {size}), got {tuple(x.shape)}.")
        # Autocast would run the product in half precision, and a spectrum must not end up in the user's graph.
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            maps = x.detach().to(self.weight).reshape(-1, *shape)
            return self._product(maps, adjoint=adjoint).reshape(*x.shape[:-1], -1)

    def _product(self, maps: Tensor, *, adjoint: bool) -> Tensor:
        geometry = self._geometry
        if geometry is None:
            return maps @ (self.weight if adjoint else self.weight.T)
        options = {"stride": geometry.stride, "dilation": geometry.dilation, "groups": self.groups}
        backwards, dims = adjoint != self._transposed, len(geometry.kernel)
        convolve: Callable[..., Tensor] = getattr(functional, f"conv_transpose{dims}d" if backwards else f"conv{dims}d")
        if backwards:
            return geometry.unpad(convolve(maps, self.weight, **options))
        return convolve(geometry.pad(maps), self.weight, **options)

    def trace(self) -> float:
        """Return the trace of HHᵀ, the sum of squared singular values, exactly and without a product.

        For a 3×3 convolution with stride 1 and zero padding this is Σ ‖w_ab‖² (height − |a − 1|)(width − |b − 1|).
        """
        if self._geometry is None:
            return float(self.weight.double().square().sum()) * math.prod(self.input_shape[:-1])
        return self._geometry.squared_norm(self.weight)

    def factor(self) -> tuple[LinearMap, int]:
        """Return (F, m) such that the singular values of H are those of the operator F, each m times.

        A linear layer or a 1×1 convolution does the same at each of m positions: F is its kernel. Otherwise m is 1.
        """
        geometry = self._geometry
        if geometry is None:
            return MatrixOperator(self.weight), math.prod(self.input_shape[:-1])
        one = (1,) * len(geometry.kernel)
        if geometry.kernel == one and geometry.stride == one and geometry.inputs == geometry.outputs:
            kernels = self.weight.flatten(1).chunk(self.groups)
            matrix: Tensor = torch.block_diag(*kernels)  # type: ignore[no-untyped-call]
            return MatrixOperator(matrix), math.prod(geometry.inputs)
        return self, 1

    def blocks(self) -> list[LayerOperator]:
        """Return the operators of the groups, of which H is made as a block-diagonal matrix; of one group, itself."""
        if self.groups == 1:
            return [self]
        blocks = []
        for weight in self.weight.chunk(self.groups):
            block = copy(self)
            block.weight, block.groups = weight, 1
            block.input_shape = (self.input_shape[0] // self.groups, *self.input_shape[1:])
            block.output_shape = (self.output_shape[0] // self.groups, *self.output_shape[1:])
            block.shape = math.prod(block.output_shape), math.prod(block.input_shape)
            blocks.append(block)
        return blocks

    def frequencies(self) -> tuple[float, Callable[[], Tensor]] | None:
        """Return the work of finding all eigenvalues by frequency, and how; None where shifts do not commute with H."""
        if self._geometry is None or math.isinf(work := circular_work(self.weight, self._geometry, self.groups)):
            return None
        return work, partial(circular_eigenvalues, self.weight, self._geometry, self.groups)

    def to_scipy(self) -> Any:
        """Return the operator as a ``scipy.sparse.linalg.LinearOperator``, for NumPy vectors on the CPU.

        Blocks are columns there, as SciPy has them.
        """

        def through(product: Callable[[Tensor], Tensor], columns: Any) -> Any:
            return product(torch.as_tensor(columns.T.copy()).to(self.weight)).cpu().numpy().T

        forward, adjoint = partial(through, self.matvec), partial(through, self.rmatvec)
        dtype = str(self.dtype).removeprefix("torch.")
        return linalg.LinearOperator(self.shape, forward, adjoint, forward, dtype, rmatmat=adjoint)
