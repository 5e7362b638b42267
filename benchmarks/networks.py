"""The networks and batches that benchmarks train."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from lightning_saturation.capture.tracker import LayerTracker

Batch = tuple[torch.Tensor, torch.Tensor]


def vgg(sizes: Sequence[int], width: float) -> tuple[list[nn.Module], int]:
    """Return 3×3 convolutions with batch norm, a pool for each 0 of ``sizes``, and the channels that they end with."""
    layers: list[nn.Module] = []
    channels = 3
    for size in sizes:
        if size:
            features = int(size * width)
            layers += [nn.Conv2d(channels, features, 3, padding=1), nn.BatchNorm2d(features), nn.ReLU()]
            channels = features
        else:
            layers.append(nn.MaxPool2d(2))
    return layers, channels


def vgg11(width: float = 0.25) -> nn.Module:
    """Return VGG11 with batch norm at a quarter of its width, for 32×32 images."""
    layers, channels = vgg((64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0), width)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


class Block(nn.Module):
    """Two 3×3 convolutions and a shortcut."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, 1, 1, bias=False),
            nn.BatchNorm2d(after),
        )
        same = stride == 1 and before == after
        self.shortcut = nn.Identity() if same else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output."""
        return torch.relu(self.body(x) + self.shortcut(x))


def resnet18(width: float = 0.5) -> nn.Module:
    """Return a ResNet-18 for 32×32 images at half of its width."""
    sizes = [int(size * width) for size in (64, 128, 256, 512)]
    layers: list[nn.Module] = [nn.Conv2d(3, sizes[0], 3, padding=1, bias=False), nn.BatchNorm2d(sizes[0]), nn.ReLU()]
    before = sizes[0]
    for number, size in enumerate(sizes):
        layers += [Block(before, size, 2 if number else 1), Block(size, size, 1)]
        before = size
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10))


class Transformer(nn.Module):
    """Four encoder blocks of 256 features over 64 tokens, and a classifier."""

    def __init__(self, blocks: int = 4, features: int = 256) -> None:
        super().__init__()
        block = nn.TransformerEncoderLayer(features, 4, 4 * features, dropout=0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, blocks, enable_nested_tensor=False)
        self.head = nn.Linear(features, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits (samples, 10) of tokens (samples, 64, 256)."""
        return self.head(self.blocks(x).mean(1))


def images() -> Batch:
    """Return a batch of 128 images."""
    return torch.randn(128, 3, 32, 32), torch.randint(0, 10, (128,))


def few_images() -> Batch:
    """Return a batch of 64 images."""
    return torch.randn(64, 3, 32, 32), torch.randint(0, 10, (64,))


def tokens() -> Batch:
    """Return a batch of 32 sequences of 64 tokens."""
    return torch.randn(32, 64, 256), torch.randint(0, 10, (32,))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Batch]]] = {
    "VGG11, width 1/4, 32×32, batch 128": (vgg11, images),
    "ResNet-18, width 1/2, 32×32, batch 64": (resnet18, few_images),
    "transformer, 4 × 256, 64 tokens, batch 32": (Transformer, tokens),
}


def training_step(net: nn.Module, batch: Batch, tracker: LayerTracker | None = None) -> None:
    """Train one step; a tracker counts as the monitor does, within the batch only."""
    if tracker is not None:
        tracker.record("train")
    net.optimizer.zero_grad()  # type: ignore[union-attr, operator]
    nn.functional.cross_entropy(net(batch[0]), batch[1]).backward()
    net.optimizer.step()  # type: ignore[union-attr, operator]
    if tracker is not None:
        tracker.record(None)


def network(build: Callable[[], nn.Module]) -> nn.Module:
    """Return the network, the same each time, with its optimizer."""
    torch.manual_seed(0)
    net = build()
    object.__setattr__(net, "optimizer", torch.optim.Adam(net.parameters()))
    return net
