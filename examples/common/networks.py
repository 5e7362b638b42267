"""The networks of Shenk et al., section 3.1, and a small CNN: flat, so that a layer's name says where it sits.

Each takes the shape of an image (channels, height, width), the number of classes and a ``width`` factor, and works on
8×8 digits as well as on 32×32 photographs.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

from torch import nn

Shape = tuple[int, int, int]

_STAGES = (64, 128, 256, 512, 512)
_CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def mlp(shape: Shape, classes: int, *, width: float = 1.0) -> nn.Sequential:
    """Return three linear layers: 128 units, ``128 · width`` hidden units (the paper's 8 to 128), the classes."""
    channels, height, columns = shape
    hidden = _scaled(128, width)
    return nn.Sequential(
        OrderedDict(
            flatten=nn.Flatten(),
            input=nn.Linear(channels * height * columns, 128),
            relu1=nn.ReLU(),
            hidden=nn.Linear(128, hidden),
            relu2=nn.ReLU(),
            output=nn.Linear(hidden, classes),
        )
    )


def cnn(shape: Shape, classes: int, *, width: float = 1.0) -> nn.Sequential:
    """Return four convolutions with batch norm (32, 64, 64, 64 channels times ``width``), global pooling, an output."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels, side = shape[0], min(shape[1:])
    for index, base in enumerate((32, 64, 64, 64), start=1):
        channels = _convolution(layers, f"{index}", channels, _scaled(base, width))
        if index < 4 and side >= 4:
            layers[f"pool{index}"], side = nn.MaxPool2d(2), side // 2
    layers["pool"], layers["flatten"] = nn.AdaptiveAvgPool2d(1), nn.Flatten()
    layers["output"] = nn.Linear(channels, classes)
    return nn.Sequential(layers)


def vgg(depth: int, shape: Shape, classes: int, *, width: float = 1.0) -> nn.Sequential:
    """Return VGG's convolutions with batch norm, global average pooling, one fully connected layer and the output.

    ``depth`` counts 11, 13, 16 or 19 as VGG does. On images below 32 pixels the poolings between stages that would
    leave less than 2×2 are left out: a 3×3 convolution on a single pixel would waste eight of its nine weights.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels, side = shape[0], min(shape[1:])
    for stage, (base, repeats) in enumerate(zip(_STAGES, _CONVOLUTIONS[depth], strict=True), start=1):
        for repeat in range(1, repeats + 1):
            channels = _convolution(layers, f"{stage}_{repeat}", channels, _scaled(base, width))
        if side >= 4 or (side >= 2 and stage == len(_STAGES)):
            layers[f"pool{stage}"], side = nn.MaxPool2d(2), side // 2
    layers["pool"], layers["flatten"] = nn.AdaptiveAvgPool2d(1), nn.Flatten()
    layers["hidden"], layers["relu"] = nn.Linear(channels, channels), nn.ReLU()
    layers["output"] = nn.Linear(channels, classes)
    return nn.Sequential(layers)


vgg11, vgg13, vgg16, vgg19 = (partial(vgg, depth) for depth in _CONVOLUTIONS)

NETWORKS: dict[str, Callable[..., nn.Sequential]] = {
    "cnn": cnn,
    "mlp": mlp,
    "vgg11": vgg11,
    "vgg13": vgg13,
    "vgg16": vgg16,
    "vgg19": vgg19,
}


def network(name: str, shape: Shape, classes: int, *, width: float = 1.0) -> nn.Sequential:
    """Return the network called ``name`` for images of ``shape``; ValueError names the networks there are."""
    if name not in NETWORKS:
        raise ValueError(f"Expected a network among {', '.join(NETWORKS)}, got {name!r}.")
    return NETWORKS[name](shape, classes, width=width)


def _convolution(layers: OrderedDict[str, nn.Module], name: str, channels: int, filters: int) -> int:
    # no bias: the batch norm that follows subtracts it again
    layers[f"conv{name}"] = nn.Conv2d(channels, filters, kernel_size=3, padding=1, bias=False)
    layers[f"norm{name}"] = nn.BatchNorm2d(filters)
    layers[f"relu{name}"] = nn.ReLU(inplace=True)
    return filters


def _scaled(base: int, width: float) -> int:
    if not width > 0:
        raise ValueError(f"Expected `width` above 0, got {width}.")
    return max(1, round(base * width))
