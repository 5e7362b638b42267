"""What a layer's own shape allows: how many inputs and weights it has, and how many directions its outputs can have."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import nn

from lightning_saturation.capture.pooling import Pooling

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class LayerShape(NamedTuple):
    """``inputs`` (features of the inputs), ``weights`` (their number) and ``reach``; NaN where unknown.

    ``reach`` is how many directions the rows of a layer's outputs can have, whatever its width.
    """

    inputs: float = math.nan
    weights: float = math.nan
    reach: float = math.nan


def layer_shape(module: nn.Module, pooling: Pooling | None) -> LayerShape:
    """Return the shape of ``module``, whose outputs become rows by ``pooling``.

    A linear map has no more directions than it has inputs: those of a patch, where each position is a row. The average
    of a convolution over positions is, up to the borders, the same map of the averaged inputs: whatever its kernel, it
    has hardly more directions than input channels. The largest value and the median are no linear maps.
    """
    if isinstance(module, nn.Linear):
        inputs, outputs, patch = module.in_features, module.out_features, 1
    elif isinstance(module, _CONVOLUTIONS + _TRANSPOSED):
        inputs, outputs = module.in_channels, module.out_channels
        patch = math.prod(module.kernel_size)
    else:
        return LayerShape()
    if not inputs:  # lazy, and not yet run
        return LayerShape()
    groups = getattr(module, "groups", 1)
    reach = math.nan
    if pooling == "mean":
        reach = inputs
    elif pooling in ("positions", "last"):
        reach = inputs * patch
    return LayerShape(float(inputs), float(inputs * outputs * patch // groups), float(reach))
