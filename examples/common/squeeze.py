"""A SqueezeNet of two to eight fire modules, for images of 8 pixels and more."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn


class Fire(nn.Module):
    """Squeeze to few channels by 1×1, expand by 1×1 and by 3×3 side by side (Iandola et al., 2016).

    Batch norm is not in the original; with it a few epochs are enough to learn something.
    """

    def __init__(self, channels: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)
        self.norm = nn.BatchNorm2d(2 * expanded)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.squeeze(x))
        return torch.relu(self.norm(torch.cat([self.expand1x1(x), self.expand3x3(x)], dim=1)))


def squeezenet(shape: tuple[int, int, int], classes: int, *, width: float = 1.0) -> nn.Sequential:
    """Return SqueezeNet 1.1's order of layers, without its first stride on images below 64 pixels.

    A pooling that would leave less than 4×4 is left out, with the fire modules behind it.
    """
    channels, side = shape[0], min(shape[1:])
    first = max(4, round(64 * width))
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["conv1"] = nn.Conv2d(channels, first, 3, padding=1, stride=2 if side >= 64 else 1)
    layers["relu1"] = nn.ReLU()
    side, channels, number = side // 2 if side >= 64 else side, first, 2
    for squeezed, expanded, repeats in ((16, 64, 2), (32, 128, 2), (48, 192, 2), (64, 256, 2)):
        if squeezed in (16, 32, 48):
            if side < 8:
                break
            layers[f"pool{number}"], side = nn.MaxPool2d(2), side // 2
        for _ in range(repeats):
            squeezed_, expanded_ = max(4, round(squeezed * width)), max(8, round(expanded * width))
            layers[f"fire{number}"] = Fire(channels, squeezed_, expanded_)
            channels, number = 2 * expanded_, number + 1
    layers["classifier"] = nn.Conv2d(channels, classes, 1)
    layers["pool"], layers["flatten"] = nn.AdaptiveAvgPool2d(1), nn.Flatten()
    network = nn.Sequential(layers)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    nn.init.normal_(layers["classifier"].weight, std=0.01)
    return network
