"""Peak memory of a training run with and without a monitor, each in a process of its own.

    python benchmarks/memory.py                         # an MLP with a layer of 16,384 features, and the VGG

On a GPU the peak is that of its allocator, on a CPU the resident set's.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
from typing import Any

import torch
from interleaved import machine, table
from networks import NETWORKS, network, training_step
from torch import nn

from lightning_saturation.capture.select import CaptureOptions
from lightning_saturation.covariance.accumulation import Accumulation
from lightning_saturation.saturation.window import saturation_tracker


def wide() -> nn.Module:
    """Return an MLP with one layer of 16,384 features."""
    return nn.Sequential(nn.Linear(256, 16_384), nn.ReLU(), nn.Linear(16_384, 10))


BUILDS = {
    "MLP 256 → 16,384 → 10, batch 256": (wide, lambda: (torch.randn(256, 256), torch.randint(0, 10, (256,)))),
    **{name: pair for name, pair in NETWORKS.items() if name.startswith("VGG")},
}
WAYS: dict[str, tuple[str, Accumulation] | None] = {
    "no monitor": None,
    "mean, auto (default)": ("mean", Accumulation()),
    "mean, sketch": ("mean", Accumulation("sketch")),
    "mean, exact": ("mean", Accumulation("exact")),
    "positions, auto": ("positions", Accumulation("auto", "auto")),
    "positions, all": ("positions", Accumulation("auto", None)),
}


def peak(name: str, way: str, steps: int, answers: Any) -> None:
    build, make_batch = BUILDS[name]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    net, batch = network(lambda: build().to(device)), tuple(part.to(device) for part in make_batch())
    training_step(net, batch)
    chosen, tracker = WAYS[way], None
    if chosen is not None:
        tracker = saturation_tracker(net, CaptureOptions(pooling=chosen[0]), stages=["train"], kept=chosen[1])
        tracker.windows["train"].batches = steps
        tracker.attach()
    for _ in range(steps):
        training_step(net, batch, tracker)
    training = _peak()
    if tracker is not None:
        tracker.windows["train"].statistics(delta=0.99)
    answers.put((training, _peak()))


def _peak() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--only", default="", help="networks whose name starts so")
    parser.add_argument("--skip", nargs="*", default=[], help="ways to leave out")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    rows = []
    for name in BUILDS:
        if not name.startswith(options.only):
            continue
        base = None
        for way in WAYS:
            if way in options.skip or ("positions" in way and name.startswith("MLP")):
                continue
            answers = context.SimpleQueue()
            process = context.Process(target=peak, args=(name, way, options.steps, answers))
            process.start()
            training, closing = answers.get()
            process.join()
            base = base or (training, closing)
            more = (f"{training - base[0]:+,.0f}", f"{closing - base[1]:+,.0f}")
            rows.append((name, way, f"{training:,.0f}", *more))
            print(rows[-1], flush=True)
    print(table(rows, ("network", "monitor", "peak while training, MiB", "more", "more, with closing a window")))
    print(machine())


if __name__ == "__main__":
    main()
