"""What watching costs per training step: no monitor, ours and delve, interleaved step by step in one process.

    python benchmarks/overhead.py                  # median of the steps' ratios, quartiles, and the ratio of totals
    python benchmarks/overhead.py --rounds 200 --only "VGG11"

The median is the step that most steps are; the ratio of totals also holds the steps in which rows are folded into the
covariance. Closing a window (the eigenproblems, once an epoch) is given apart, in steps. Needs the extra `benchmarks`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial

import torch
from interleaved import interleave, machine, ratio, table
from torch import nn

from lightning_saturation.capture.pooling import Pooling
from lightning_saturation.capture.tracker import LayerTracker
from lightning_saturation.covariance.accumulation import MaxSamples, accumulation
from lightning_saturation.saturation.window import saturation_tracker

STEPS_PER_EPOCH = 391  # of CIFAR-10 at a batch of 128; a budget spreads over so many steps

Batch = tuple[torch.Tensor, torch.Tensor]


def vgg11(width: float = 0.25) -> nn.Module:
    """Return VGG11 with batch norm at a quarter of its width, for 32×32 images."""
    layers: list[nn.Module] = []
    channels = 3
    for size in (64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0):
        if size:
            features = int(size * width)
            layers += [nn.Conv2d(channels, features, 3, padding=1), nn.BatchNorm2d(features), nn.ReLU()]
            channels = features
        else:
            layers.append(nn.MaxPool2d(2))
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


def ours(
    build: Callable[[], nn.Module], batch: Batch, pooling: Pooling, max_samples: MaxSamples = "default"
) -> tuple[Callable[[], None], LayerTracker]:
    """Return a step with our hooks, and the tracker behind them."""
    net = network(build)
    kept = accumulation(pooling=pooling, max_samples=max_samples)
    tracker = saturation_tracker(net, stages=["train"], pooling=pooling, kept=kept)
    tracker.windows["train"].batches = STEPS_PER_EPOCH
    tracker.attach()
    return partial(training_step, net, batch, tracker), tracker


def delve(build: Callable[[], nn.Module], batch: Batch, method: str) -> Callable[[], None] | None:
    """Return a step with delve's hooks, or None where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escape sequences in its source
            from delve import SaturationTracker
    except ImportError:
        return None
    net = network(build)
    with contextlib.redirect_stdout(io.StringIO()):
        SaturationTracker(tempfile.mkdtemp(), "csv", net, conv_method=method, device="cpu")
    return partial(training_step, net, batch)


def compare(name: str, rounds: int, clock: Callable[[], float]) -> list[tuple[str, ...]]:
    """Return the table's rows for one network."""
    build, make_batch = NETWORKS[name]
    torch.manual_seed(1)
    batch = make_batch()
    mine, tracker = ours(build, batch, "mean")
    some, _ = ours(build, batch, "positions")
    positions, _ = ours(build, batch, "positions", None)
    steps: dict[str, Callable[[], None] | None] = {
        "no monitor": partial(training_step, network(build), batch),
        "ours, mean (default)": mine,
        "ours, positions + auto (default)": some,
        "ours, positions + all": positions,
        # Of tokens delve takes the last one, whatever the method for images; it has no rows of positions for them.
        "delve, mean" if len(batch[0].shape) == 4 else "delve, last token": delve(build, batch, "mean"),
        "delve, positions (its default)": delve(build, batch, "channelwise") if len(batch[0].shape) == 4 else None,
    }
    seconds = interleave({key: step for key, step in steps.items() if step is not None}, rounds=rounds, clock=clock)
    rows = []
    for variant in list(seconds)[1:]:
        median, low, high, total = ratio(seconds, variant, "no monitor")
        rows.append((name, variant, f"{median:.3f}", f"{low:.3f} – {high:.3f}", f"{total:.3f}"))
    step = sorted(seconds["no monitor"])[rounds // 2]
    start = clock()
    tracker.windows["train"].statistics(delta=0.99)
    rows.append((name, "ours, closing a window", f"{(clock() - start) / step:.1f} steps", "", ""))
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100, help="steps of each variant (default: %(default)s)")
    parser.add_argument("--only", default="", help="networks whose name starts so")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: processor seconds, one thread")
    arguments = parser.parse_args()
    clock = time.perf_counter
    if arguments.clock == "cpu":
        torch.set_num_threads(1)
        clock = time.process_time
    rows = [
        row for name in NETWORKS if name.startswith(arguments.only) for row in compare(name, arguments.rounds, clock)
    ]
    print(table(rows, ("network", "variant", "median step ratio", "quartiles", "total ratio")))
    print(machine("lightning"))


if __name__ == "__main__":
    main()
