"""The eigenvalues of a circularly padded convolution: one small eigenproblem for each frequency."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_saturation.operators.convolution_geometry import Geometry
from lightning_saturation.shapes import Float

_NUMBERS = 2**26  # complex numbers of all frequencies' kernels that may be in memory: 1 GiB


def circular_work(weight: Tensor, geometry: Geometry, groups: int) -> float:
    """Return how many operations :func:`circular_eigenvalues` takes, as a multiple of a real matrix's n³ for size n.

    Infinite for a convolution that is not circular with stride 1, and for one whose kernels would fill the memory.
    """
    frequencies = math.prod(geometry.inputs) // geometry.inputs[-1] * (geometry.inputs[-1] // 2 + 1)
    circular = geometry.mode == "circular" and geometry.inputs == geometry.outputs and set(geometry.stride) == {1}
    if not circular or weight.flatten(2).shape[:2].numel() * frequencies > _NUMBERS:
        return math.inf
    smaller = min(weight.shape[0] // groups, weight.shape[1])
    return 4.0 * frequencies * groups * smaller**3  # a complex product is four real ones


def circular_eigenvalues(weight: Tensor, geometry: Geometry, groups: int) -> Float[Tensor, " size"]:
    """Return the eigenvalues of HHᵀ or HᵀH, whichever is smaller, float64 on the CPU in no order.

    Shifts commute with such a convolution H of ``weight`` (outputs, inputs / groups, *kernel), so that the Fourier
    transform splits it into a matrix of outputs × inputs for each frequency, and each group. A real kernel has the same
    singular values at a frequency and at its opposite, which is why half of them are enough.

    Source: Sedghi, Gupta and Long, *The singular values of convolutional layers*, 2019, theorem 6.
    """
    kernel = weight.double().reshape(groups, -1, *weight.shape[1:])
    for dim, (size, taps, apart) in enumerate(zip(geometry.inputs, geometry.kernel, geometry.dilation, strict=True)):
        line = kernel.new_zeros(*kernel.shape[: 3 + dim], size, *kernel.shape[4 + dim :])
        places = torch.arange(taps, device=kernel.device) * apart % size  # taps that wrap add up
        kernel = line.index_add_(3 + dim, places, kernel)
    spatial = list(range(3, kernel.ndim))
    matrices = torch.fft.rfftn(kernel, dim=spatial).movedim((1, 2), (-2, -1))
    adjoint = matrices.mH
    products = matrices @ adjoint if matrices.shape[-2] <= matrices.shape[-1] else adjoint @ matrices
    values: Tensor = torch.linalg.eigvalsh(products)  # (groups, *frequencies, size)
    length, half = geometry.inputs[-1], values.shape[-2]
    times = torch.full((half,), 2, device=values.device)
    times[0] = 1
    if length % 2 == 0:
        times[-1] = 1
    return values.clamp(min=0).repeat_interleave(times, dim=-2).flatten().cpu()
