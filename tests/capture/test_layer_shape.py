"""How many directions the rows of a layer can have, checked against the rank of real ones."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from lightning_saturation import measure_saturation
from lightning_saturation.capture.layer_shape import LayerShape, layer_shape


@pytest.mark.parametrize("pooling", ["mean", "positions", "last"])
@pytest.mark.parametrize(
    "module",
    [
        nn.Linear(3, 20),
        nn.Conv2d(3, 40, 2, bias=False),
        nn.Conv2d(4, 40, 2, groups=2),
        nn.Conv2d(2, 20, 2, stride=2),
    ],
)
def test_rows_have_as_many_directions_as_the_reach(module, pooling):
    """Without padding the statement is exact for rows that are positions; averages have a few more at the borders."""
    torch.manual_seed(0)
    channels = getattr(module, "in_features", None) or module.in_channels
    shape = (2000, channels) if isinstance(module, nn.Linear) else (2000, channels, 6, 6)
    rows = torch.randn(1, *shape)
    report = measure_saturation(nn.Sequential(module), rows, pooling=pooling, delta=1.0, progress=False)
    layer = report.layers["0"]
    assert layer.reach == layer_shape(module, pooling).reach
    if pooling == "mean" and not isinstance(module, nn.Linear):
        narrow = measure_saturation(nn.Sequential(module), _smooth(shape), delta=0.99, progress=False).layers["0"]
        assert narrow.intrinsic_dimension <= layer.reach < layer.features
    else:
        assert layer.intrinsic_dimension == min(layer.reach, layer.features)


def _smooth(shape):
    """Return images that hardly differ from pixel to pixel, as photographs do not."""
    return torch.randn(1, *shape[:2], 1, 1) + 0.01 * torch.randn(1, *shape)


def test_inputs_and_weights():
    assert layer_shape(nn.Linear(3, 5), "mean") == LayerShape(3, 15, 3)
    convolution = nn.Conv2d(4, 6, (3, 5), groups=2)
    assert layer_shape(convolution, "positions") == LayerShape(4, convolution.weight.numel(), 60)
    transposed = nn.ConvTranspose1d(4, 6, 3)
    assert layer_shape(transposed, "mean") == LayerShape(4, transposed.weight.numel(), 4)


@pytest.mark.parametrize("pooling", ["max", "median", "flatten"])
def test_what_is_no_linear_map_of_a_patch_has_no_known_reach(pooling):
    assert math.isnan(layer_shape(nn.Conv2d(3, 40, 2), pooling).reach)


def test_unknown_and_lazy_layers_have_no_shape():
    for module in (nn.LSTM(3, 5), nn.LazyLinear(3)):
        assert all(math.isnan(number) for number in layer_shape(module, "mean"))
