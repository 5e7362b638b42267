"""Where the taps of a convolution read: padding, its adjoint, and how often each tap meets the input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

_SOURCES = {
    "circular": lambda position, size: position % size,
    "replicate": lambda position, size: position.clamp(0, size - 1),
    # A triangle wave: 0 1 2 3 2 1 0 for size 4, which is what reflection without repeating the border reads.
    "reflect": lambda position, size: (size - 1) - ((position % max(2 * (size - 1), 1)) - (size - 1)).abs(),
}


class Geometry(NamedTuple):
    """A convolution without its weight: one entry per spatial dimension, from ``inputs`` to ``outputs`` positions.

    The padded line is just as long as the taps reach, so that forward and adjoint need no output padding: ``after``
    is negative where a stride leaves the last positions unread.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    before: tuple[int, ...]
    mode: str

    @property
    def after(self) -> tuple[int, ...]:
        """Padding behind the last position, by dimension."""
        reach = zip(self.outputs, self.kernel, self.stride, self.dilation, strict=True)
        needed = [(o - 1) * s + d * (k - 1) + 1 for o, k, s, d in reach]
        return tuple(n - b - i for n, b, i in zip(needed, self.before, self.inputs, strict=True))

    def source(self, dim: int) -> Tensor:
        """Return which input position each padded position reads along ``dim``; −1 reads a zero."""
        size, before = self.inputs[dim], self.before[dim]
        position = torch.arange(-before, size + self.after[dim])
        inside = (position >= 0) & (position < size)
        fill = _SOURCES[self.mode](position, size) if self.mode in _SOURCES else torch.full_like(position, -1)
        return torch.where(inside, position, fill)

    def pad(self, x: Tensor) -> Tensor:
        """Return ``x`` (vectors, channels, *inputs) with the borders that the taps read."""
        if self.mode not in _SOURCES:
            return functional.pad(x, self._flat(1))
        for dim in range(len(self.inputs)):
            x = x.index_select(2 + dim, self.source(dim).to(x.device))
        return x

    def unpad(self, y: Tensor) -> Tensor:
        """Return the adjoint of ``pad``: every border value goes back to the position that it was read from."""
        if self.mode not in _SOURCES:
            return functional.pad(y, self._flat(-1))
        for dim, size in enumerate(self.inputs):
            shape = (*y.shape[: 2 + dim], size, *y.shape[3 + dim :])
            y = y.new_zeros(shape).index_add_(2 + dim, self.source(dim).to(y.device), y)
        return y

    def coincidences(self, dim: int) -> Tensor:
        """Return how many outputs along ``dim`` read the same input by tap a and by tap b, (kernel, kernel) float64."""
        starts = torch.arange(self.outputs[dim]) * self.stride[dim]
        reads = self.source(dim)[starts[:, None] + torch.arange(self.kernel[dim]) * self.dilation[dim]]
        same = (reads[:, :, None] == reads[:, None, :]) & (reads >= 0)[:, :, None]
        return same.sum(0).double()

    def squared_norm(self, weight: Tensor) -> float:
        """Return the squared Frobenius norm of the whole operator with ``weight`` (…, …, *kernel), exactly.

        It is the sum over pairs of taps of their inner product times the number of outputs where both read the same
        input; with zero padding only a tap and itself do, with other paddings borders are read twice.
        """
        taps = weight.double().cpu().flatten(0, 1).flatten(1)
        meet = torch.ones(1, 1, dtype=torch.float64)
        for dim in range(len(self.kernel)):
            meet = torch.kron(meet, self.coincidences(dim))
        return float(((taps.T @ taps) * meet).sum())

    def _flat(self, sign: int) -> list[int]:
        return [sign * p for pair in reversed(list(zip(self.before, self.after, strict=True))) for p in pair]


def convolution_geometry(layer: Any, shape: Sequence[int]) -> tuple[Geometry, bool]:
    """Return the geometry of convolution ``layer`` on inputs (channels, *``shape``), and whether it runs backwards.

    A transposed convolution is the adjoint of the convolution whose geometry comes back. Raises a ``ValueError`` where
    the layer has no output on such an input.
    """
    kernel, stride, dilation = layer.kernel_size, layer.stride, layer.dilation
    sizes = tuple(shape)
    reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    if layer.transposed:
        before = tuple(layer.padding)
        each = zip(sizes, stride, before, reach, layer.output_padding, strict=True)
        outputs = tuple((i - 1) * s - 2 * p + r + extra + 1 for i, s, p, r, extra in each)
        geometry = Geometry(outputs, sizes, kernel, stride, dilation, before, "zeros")
    else:
        pads = _pads(layer.padding, reach)
        each_in = zip(sizes, pads, reach, stride, strict=True)
        outputs = tuple((i + b + a - r - 1) // s + 1 for i, (b, a), r, s in each_in)
        geometry = Geometry(sizes, outputs, kernel, stride, dilation, tuple(b for b, _ in pads), layer.padding_mode)
        _check_border(layer, sizes, pads)
    if math.prod(sizes) < 1 or min(outputs) < 1:
        raise ValueError(f"Expected `input_shape` on which {layer} has an output, got spatial size {sizes}.")
    return geometry, bool(layer.transposed)


def _pads(padding: str | tuple[int, ...], reach: Sequence[int]) -> list[tuple[int, int]]:
    if padding == "same":
        return [(r // 2, r - r // 2) for r in reach]
    if padding == "valid":
        return [(0, 0) for _ in reach]
    return [(int(p), int(p)) for p in padding]


def _check_border(layer: Any, sizes: Sequence[int], pads: Sequence[tuple[int, int]]) -> None:
    """Raise where torch refuses the padding: a border wider than what can be reflected or wrapped once."""
    limits = {"reflect": -1, "circular": 0}
    if layer.padding_mode in limits:
        for size, pad in zip(sizes, pads, strict=True):
            if max(pad) > size + limits[layer.padding_mode]:
                raise ValueError(f"Expected `input_shape` wider than the padding of {layer}, got {tuple(sizes)}.")
