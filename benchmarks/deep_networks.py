"""What networks cost that have a vocabulary, or many layers and few samples.

    python benchmarks/deep_networks.py

The first part trains a small language model of 50,257 words for 20 steps and closes the window, in turns: by default,
which leaves the vocabulary out, and with ``exclude=["*lm_head"]``; memory is the peak of a process of its own. The
second part closes a first window of 8 images in a network with the 161 layers of EfficientNet-B4.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import time
from typing import Any

import torch
from interleaved import interleave, machine, ratio, table
from torch import Tensor, nn

from lightning_saturation.capture.select import CaptureOptions
from lightning_saturation.saturation.window import saturation_tracker

VOCABULARY = 50_257
WAYS: dict[str, CaptureOptions | None] = {
    "no monitor": None,
    "default": CaptureOptions(),
    "without the head": CaptureOptions(exclude=["*lm_head"]),
}
# expansion, kernel, stride, channels, repeats
B4 = [
    (1, 3, 1, 24, 2), (6, 3, 2, 32, 4), (6, 5, 2, 56, 4), (6, 3, 2, 112, 6), (6, 5, 1, 160, 6), (6, 5, 2, 272, 8),
    (6, 3, 1, 448, 2),
]  # fmt: skip


class LanguageModel(nn.Module):
    """Two blocks of width 32 and a head as wide as the vocabulary."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, 32)
        block = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
        self.body = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        self.lm_head = nn.Linear(32, VOCABULARY, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.lm_head(self.body(self.words(tokens)))


class Block(nn.Module):
    """A mobile inverted bottleneck with squeeze and excitation."""

    def __init__(self, inside: int, out: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = inside * expansion
        expand = [nn.Conv2d(inside, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.SiLU()] if expansion > 1 else []
        depth = nn.Conv2d(wide, wide, kernel, stride, kernel // 2, groups=wide, bias=False)
        self.head = nn.Sequential(*expand, depth, nn.BatchNorm2d(wide), nn.SiLU())
        squeezed = max(1, inside // 4)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(wide, squeezed, 1), nn.SiLU(), nn.Conv2d(squeezed, wide, 1), nn.Sigmoid()
        )
        self.tail = nn.Sequential(nn.Conv2d(wide, out, 1, bias=False), nn.BatchNorm2d(out))
        self.adds = stride == 1 and inside == out

    def forward(self, x: Tensor) -> Tensor:
        h = self.head(x)
        h = self.tail(h * self.gate(h))
        return x + h if self.adds else h


def efficientnet_b4() -> nn.Module:
    """Return a network of the layers of EfficientNet-B4, for 1,000 classes."""
    layers: list[nn.Module] = [nn.Conv2d(3, 48, 3, 2, 1, bias=False), nn.BatchNorm2d(48), nn.SiLU()]
    inside = 48
    for expansion, kernel, stride, out, repeats in B4:
        for index in range(repeats):
            layers.append(Block(inside, out, expansion, kernel, stride if index == 0 else 1))
            inside = out
    layers += [nn.Conv2d(inside, 1792, 1, bias=False), nn.BatchNorm2d(1792), nn.SiLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1792, 1000))


def train(way: str, steps: int) -> None:
    """Train the language model for some steps under a tracker, and close the window."""
    torch.manual_seed(0)
    model, chosen = LanguageModel(), WAYS[way]
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    tracker = None if chosen is None else saturation_tracker(model, chosen, stages=("train",))
    if tracker is not None:
        tracker.attach()
    for _ in range(steps):
        tokens = torch.randint(0, VOCABULARY, (4, 16))
        if tracker is not None:
            tracker.record("train", tokens)
        loss = nn.functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten())
        if tracker is not None:
            tracker.record(None)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if tracker is not None:
        tracker.windows["train"].statistics(delta=0.99)
        tracker.detach()


def peak(way: str, steps: int, answers: Any) -> None:
    """Put the peak memory in MiB of a run into ``answers``."""
    train(way, steps)
    answers.put(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def first_window(rounds: int, size: int) -> tuple[int, float, float]:
    """Return how many layers B4 has, and the processor seconds of a training step and of closing a window of one."""
    torch.manual_seed(0)
    model = efficientnet_b4()
    x, y = torch.randn(8, 3, size, size), torch.randint(0, 1000, (8,))
    steps, closings = [], []
    tracker = saturation_tracker(model, stages=("train",))
    for number in range(rounds + 1):
        start = time.process_time()
        nn.functional.cross_entropy(model(x), y).backward()
        steps.append(time.process_time() - start)
        tracker.attach()
        tracker.record("train", (x, y))
        with torch.no_grad():
            model(x)
        tracker.detach()
        start = time.process_time()
        tracker.windows["train"].statistics(delta=0.99)
        closings.append(time.process_time() - start)
        tracker.windows["train"].reset()
        if number == 0:
            steps, closings = [], []  # the first are slower
    return len(tracker.names), statistics.median(steps), statistics.median(closings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{machine('lightning')}, processor seconds, {options.rounds} rounds\n")
    runs = {way: lambda way=way: train(way, options.steps) for way in WAYS}
    seconds = interleave(runs, rounds=options.rounds, warm_up=1, clock=time.process_time)
    context = multiprocessing.get_context("spawn")
    rows = []
    for way in WAYS:
        answers = context.Queue()
        process = context.Process(target=peak, args=(way, options.steps, answers))
        process.start()
        memory = answers.get()
        process.join()
        median, low, high, _ = ratio(seconds, way, "without the head")
        rows.append(
            (
                way,
                f"{statistics.median(seconds[way]):.2f} s",
                f"{median:.3f} ({low:.3f} – {high:.3f})",
                f"{memory:,.0f} MiB",
            )
        )
    print(table(rows, (f"{options.steps} steps", "time", "of that without the head", "peak memory")))
    layers, step, closing = first_window(options.rounds, options.size)
    seconds_of = (f"{layers}", f"{step:.2f} s", f"{closing:.2f} s", f"{closing / step:.2f}")
    print()
    print(table([seconds_of], ("layers of EfficientNet-B4, 8 images", "training step", "closing its window", "share")))


if __name__ == "__main__":
    main()
