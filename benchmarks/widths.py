"""What doubling or halving a network's width does to its accuracy, by the saturation that it had.

    python benchmarks/widths.py                                   # digits: dense networks and CNNs, three seeds
    python benchmarks/widths.py --data ../shared/data/cifar10     # 4,000 photographs, harder

Trains every width to the same number of epochs, measures average saturation over the training images in evaluation
mode, and prints one line for each range of it: in how many networks the double (half) width was at least as accurate,
and the mean change. Every number is that of the last epoch on the test images.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
from pathlib import Path
from statistics import fmean

import torch
from interleaved import table
from torch import nn

from lightning_saturation import measure_saturation

sys.path.insert(0, str(Path(__file__).parents[1]))
from examples.common.data import Images, images
from examples.common.networks import network

WIDTHS = {"dense": (4, 8, 16, 32, 64, 128, 256, 512), "cnn": (1 / 8, 1 / 4, 1 / 2, 1, 2)}
BINS = (0.0, 0.1, 0.2, 0.3, 0.45, 0.6, 1.0)


def dense(shape: tuple[int, int, int], classes: int, units: int) -> nn.Module:
    """Return two hidden layers of ``units`` each."""
    layers = [nn.Flatten(), nn.Linear(math.prod(shape), units), nn.ReLU(), nn.Linear(units, units), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(units, classes))


def trained(kind: str, width: float, data: Images, *, seed: int, epochs: int) -> dict[str, float | str]:
    """Return average saturation and accuracy of one network after ``epochs``."""
    torch.manual_seed(seed)
    shape, classes = data.shape, len(data.classes)
    model = dense(shape, classes, int(width)) if kind == "dense" else network(kind, shape, classes, width=width)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loader = data.train_loader(64, seed=seed)
    for _ in range(epochs):
        for x, y in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        hits = torch.cat([model(x).argmax(1) == y for x, y in data.test_loader()])
    report = measure_saturation(model, data.train_loader(256, seed=0), progress=False)
    saturation = {name: round(value, 4) for name, value in report.saturation.items()}
    return {"kind": kind, "width": width, "seed": seed, "average": report.average,
            "accuracy": float(hits.double().mean()), "saturation": saturation}  # fmt: skip


def by_saturation(runs: list[dict]) -> str:
    """Return, by ranges of average saturation, what the double and the half width did."""
    accuracy: dict[tuple, float] = {(run["kind"], run["width"], run["seed"]): run["accuracy"] for run in runs}
    lines = []
    for low, high in itertools.pairwise(BINS):
        inside = [run for run in runs if low < run["average"] <= high]
        cells = [f"{low:g} to {high:g}", str(len(inside))]
        for factor in (2, 0.5):
            keys = [(run, (run["kind"], run["width"] * factor, run["seed"])) for run in inside]
            changes = [accuracy[key] - run["accuracy"] for run, key in keys if key in accuracy]
            better = sum(change >= 0 for change in changes)
            cells.append(f"{better} of {len(changes)}, {fmean(changes):+.3f}" if changes else "none")
        lines.append(tuple(cells))
    return table(lines, ("average saturation", "networks", "double width: not worse, change", "half width"))


def main() -> None:
    """Train, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data")
    parser.add_argument("--limit", type=int, default=5000)
    parser.add_argument("--kinds", nargs="+", default=list(WIDTHS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--out", type=Path, help="a file to which each finished network is added, and not run again")
    options = parser.parse_args()
    data = images(options.data, limit=options.limit if options.data else None)
    runs = []
    if options.out and options.out.exists():
        runs = [json.loads(line) for line in options.out.read_text().splitlines()]
    done = {(run["kind"], run["width"], run["seed"]) for run in runs}
    for kind in options.kinds:
        for width in WIDTHS[kind]:
            for seed in range(options.seeds):
                if (kind, width, seed) not in done:
                    runs.append(trained(kind, width, data, seed=seed, epochs=options.epochs))
                    if options.out:
                        with options.out.open("a") as file:
                            file.write(json.dumps(runs[-1]) + "\n")
    widths = [(kind, width) for kind in options.kinds for width in WIDTHS[kind]]
    lines = []
    for kind, width in widths:
        same = [run for run in runs if (run["kind"], run["width"]) == (kind, width)]
        numbers = (fmean(run[key] for run in same) for key in ("average", "accuracy"))
        lines.append((kind, f"{width:g}", *(f"{value:.3f}" for value in numbers)))
    print(f"{data}, {options.epochs} epochs, {options.seeds} seeds\n")
    print(table(lines, ("network", "width", "average saturation", "accuracy")))
    print("\n" + by_saturation(runs))


if __name__ == "__main__":
    main()
