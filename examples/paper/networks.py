"""The networks of the paper's runs that are not among the examples' own: auto-encoder, ResNet-18, transformer."""

from __future__ import annotations

from collections import OrderedDict

import torch
from common import network
from torch import Tensor, nn

from paper.settings import Settings


class Block(nn.Module):
    """Two 3×3 convolutions with batch norm beside a shortcut (He et al., 2016)."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(filters)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != filters:
            across = nn.Conv2d(channels, filters, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(OrderedDict(conv=across, norm=nn.BatchNorm2d(filters)))

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(out)) + self.shortcut(x))


def resnet18(shape: tuple[int, int, int], classes: int, *, width: float = 1.0) -> nn.Sequential:
    """Return ResNet-18 as it is used on small images: a 3×3 convolution first, without the pooling behind it."""
    filters = [max(1, round(base * width)) for base in (64, 128, 256, 512)]
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(shape[0], filters[0], 3, padding=1, bias=False), norm=nn.BatchNorm2d(filters[0]), relu=nn.ReLU()
    )
    channels = filters[0]
    for stage, count in enumerate(filters, start=1):
        for index in (1, 2):
            layers[f"block{stage}_{index}"] = Block(channels, count, 2 if stage > 1 and index == 1 else 1)
            channels = count
    layers["pool"], layers["flatten"] = nn.AdaptiveAvgPool2d(1), nn.Flatten()
    layers["output"] = nn.Linear(channels, classes)
    return nn.Sequential(layers)


def autoencoder(shape: tuple[int, int, int], units: int) -> nn.Sequential:
    """Return three strided convolutions, a linear ``bottleneck`` of so many units, and the way back."""
    channels, height, columns = shape
    inner = (64, height // 8, columns // 8)
    flat = inner[0] * inner[1] * inner[2]
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index, (before, after) in enumerate(((channels, 16), (16, 32), (32, 64)), start=1):
        layers[f"encode{index}"] = nn.Conv2d(before, after, 3, stride=2, padding=1)
        layers[f"encode_relu{index}"] = nn.ReLU()
    layers["flatten"] = nn.Flatten()
    layers["bottleneck"] = nn.Linear(flat, units)
    layers["widen"], layers["widen_relu"] = nn.Linear(units, flat), nn.ReLU()
    layers["unflatten"] = nn.Unflatten(1, inner)
    for index, (before, after) in enumerate(((64, 32), (32, 16), (16, channels)), start=1):
        layers[f"decode{index}"] = nn.ConvTranspose2d(before, after, 4, stride=2, padding=1)
        if index < 3:
            layers[f"decode_relu{index}"] = nn.ReLU()
    return nn.Sequential(layers)


class Layer(nn.Module):
    """Attention to what came before, then two linear layers, each behind a norm and beside a shortcut.

    PyTorch's own layer reads the weights of its linear layers itself where no gradient is needed, so that it cannot
    run with others in their place (``compress``).
    """

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(features), nn.LayerNorm(features)
        self.attention = nn.MultiheadAttention(features, heads, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(features, 4 * features), nn.Linear(4 * features, features)

    def forward(self, x: Tensor, later: Tensor) -> Tensor:
        rows = self.norm1(x)
        x = x + self.attention(rows, rows, rows, attn_mask=later, need_weights=False)[0]
        return x + self.linear2(torch.relu(self.linear1(self.norm2(x))))


class Transformer(nn.Module):
    """A small language model: each character is predicted from those before it."""

    def __init__(self, characters: int, context: int, features: int, *, layers: int = 4, heads: int = 4) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, features)
        self.position = nn.Parameter(torch.empty(context, features))
        self.layers = nn.ModuleList(Layer(features, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(features)
        self.output = nn.Linear(features, characters)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the positions anew; the layers do so themselves."""
        nn.init.normal_(self.position, std=0.02)

    def forward(self, characters: Tensor) -> Tensor:
        length = characters.shape[1]
        x = self.embedding(characters) + self.position[:length]
        later = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
        for layer in self.layers:
            x = layer(x, later)
        return self.output(self.norm(x))


def build(settings: Settings, shape: tuple[int, ...], classes: int) -> nn.Module:
    """Return the run's network with the weights that its seed draws; ``shape`` is that of one input."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        if settings.model == "transformer":
            return Transformer(classes, shape[0], round(settings.width))
        image = shape[0], shape[1], shape[2]
        if settings.model == "autoencoder":
            made: nn.Module = autoencoder(image, round(settings.width))
        elif settings.model == "resnet18":
            made = resnet18(image, classes, width=settings.width)
        else:
            width = settings.width / 128 if settings.model == "mlp" else settings.width
            flat = network(settings.model, image, classes, width=width)
            made = flat if settings.widths is None else resized(flat, settings.widths)
    # A third faster for narrow convolutions on a CPU; the numbers are the same up to rounding.
    return made.to(memory_format=torch.channels_last)


def resized(network: nn.Sequential, widths: tuple[int, ...]) -> nn.Sequential:
    """Return a flat ``network`` with so many features in each layer but the last, drawn anew."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    wanted, before = iter(widths), 0
    *_, last = (layer for layer in network if isinstance(layer, nn.Linear | nn.Conv2d))
    for name, layer in network.named_children():
        made = layer
        if isinstance(layer, nn.Conv2d):
            options = {"padding": layer.padding, "bias": layer.bias is not None}
            made = nn.Conv2d(before or layer.in_channels, next(wanted), layer.kernel_size[0], **options)
            before = made.out_channels
        elif isinstance(layer, nn.BatchNorm2d):
            made = nn.BatchNorm2d(before)
        elif isinstance(layer, nn.Linear):
            made = nn.Linear(before or layer.in_features, layer.out_features if layer is last else next(wanted))
            before = made.out_features
        layers[name] = made
    return nn.Sequential(layers)


def checkpoints(model: nn.Module) -> list[str]:
    """Return where dimensions are measured: behind pooling, blocks and linear layers (Ansuini et al.)."""
    kinds = (nn.MaxPool2d, nn.AdaptiveAvgPool2d, Block, Layer)
    outer = [name for name, module in model.named_modules() if isinstance(module, kinds)]
    inner = ("input", "relu1", "hidden", "relu2", "relu", "output", "bottleneck", "widen", "encode_relu")
    named = [name for name, _ in model.named_modules() if name in inner or name.startswith(inner[-1])]
    return [name for name, _ in model.named_modules() if name in {*outer, *named}]
