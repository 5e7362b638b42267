"""What a window costs under a budget as the data grow, and what thinning does to the numbers.

    python benchmarks/window_cost.py                                       # 1×, 4× and 16× the data
    python benchmarks/window_cost.py --images ../shared/data/cifar10/test.zip

The cost is the time spent in our code (taking rows in, and closing the window) for the outputs of a layer of 256
features at 64 positions, against that of one forward and backward pass of the layer over the same data, whose share
must fall as 1/data. The bias is that of a trained convolutional network on real images (scikit-learn's digits, or
those given), every position a row: `max_samples` of so many times the width against all rows.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

import torch
from interleaved import machine, table
from torch import nn

from lightning_saturation import measure_saturation
from lightning_saturation.covariance.accumulation import accumulation
from lightning_saturation.saturation.window import Window


def _clock() -> float:
    """Return seconds; with one thread the processor's, which say the same on a busy machine."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def window_seconds(batches: int, outputs: list[torch.Tensor], known: bool) -> tuple[float, int]:
    """Return the seconds that a window of so many batches takes of ours, and the rows taken."""
    window = Window(["layer"], accumulation(pooling="positions"))
    window.batches = batches if known else None
    start = _clock()
    for number in range(batches):
        window.add("layer", outputs[number % len(outputs)])
    result = window.statistics(delta=0.99)["layer"]
    return _clock() - start, result.samples


def costs(base: int, rounds: int) -> list[tuple[str, ...]]:
    """Return the table's rows for 1×, 4× and 16× the data."""
    torch.manual_seed(0)
    mixing = torch.randn(256, 256) * 0.97 ** torch.arange(256)
    outputs = [(torch.randn(32, 64, 256) @ mixing.T) for _ in range(8)]
    layer = nn.Linear(256, 256)
    x = torch.randn(32, 64, 256, requires_grad=True)
    seconds: dict[tuple[str, int], list[float]] = {}
    taken = {}
    for _ in range(rounds):
        for factor in (1, 4, 16):
            for known in (True, False):
                key = ("known" if known else "unknown", factor)
                spent, taken[key] = window_seconds(base * factor, outputs, known)
                seconds.setdefault(key, []).append(spent)
        start = _clock()
        for _ in range(10):
            layer(x).sum().backward()
        seconds.setdefault(("layer", 1), []).append((_clock() - start) / 10)
    step = statistics.median(seconds["layer", 1])
    rows = []
    for (known_or_not, factor), spent in seconds.items():
        if known_or_not != "layer":
            middle = statistics.median(spent)
            relative = statistics.median(a / b for a, b in zip(spent, seconds[known_or_not, 1], strict=True))
            share = middle / (step * base * factor)
            rows.append(
                (
                    known_or_not,
                    f"{factor}×",
                    f"{base * factor * 32 * 64:,}",
                    f"{taken[known_or_not, factor]:,}",
                    f"{1000 * middle:.0f} ms",
                    f"{relative:.2f}",
                    f"{100 * share:.2f} %",
                )
            )
    return rows


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Return 1,797 real images (n, 1, 8, 8) and labels."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return torch.tensor(bunch.images / 16, dtype=torch.float32)[:, None], torch.tensor(bunch.target)


def archive(path: str, most: int = 2000) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images of a zip of class/number.jpg."""
    import io
    import zipfile

    import numpy as np
    from PIL import Image

    with zipfile.ZipFile(path) as file:
        names = sorted(name for name in file.namelist() if name.endswith(("jpg", "png")))
        names = names[:: max(1, len(names) // most)]
        pixels = np.stack([np.asarray(Image.open(io.BytesIO(file.read(name))).convert("RGB")) for name in names])
    classes = sorted({name.split("/")[0] for name in names})
    labels = torch.tensor([classes.index(name.split("/")[0]) for name in names])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255, labels


def bias(images: torch.Tensor, labels: torch.Tensor, epochs: int) -> list[tuple[str, ...]]:
    """Return, by layer, saturation over all rows and under budgets."""
    torch.manual_seed(0)
    c = images.shape[1]
    layers: list[nn.Module] = []
    for before, after in ((c, 32), (32, 64), (64, 128), (128, 128)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, int(labels.max()) + 1))
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(epochs):
        for chosen in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images[chosen]), labels[chosen]).backward()
            optimizer.step()
    batches = images.split(100)
    reference = measure_saturation(net, batches, pooling="positions", max_samples=None, progress=False)
    rows = []
    for name, layer in list(reference.layers.items())[:-1]:
        cells = [name, str(layer.features), f"{layer.samples:,}", f"{layer.continuous_saturation:.4f}"]
        for multiple in (2, 4, 8, 16, 32):
            budget = multiple * layer.features
            few = measure_saturation(
                net, batches, layers=[name], pooling="positions", max_samples=budget, progress=False
            ).layers[name]
            cells.append(f"{few.continuous_saturation - layer.continuous_saturation:+.4f}")
        auto = measure_saturation(net, batches, layers=[name], pooling="positions", progress=False).layers[name]
        cells.append(f"{auto.continuous_saturation - layer.continuous_saturation:+.4f} ({auto.samples:,})")
        rows.append(tuple(cells))
    return rows


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=50, help="batches of the smallest window")
    parser.add_argument("--rounds", type=int, default=7, help="of the cost, 0 for the bias alone")
    parser.add_argument("--images", help="zip of class/number.jpg instead of scikit-learn's digits")
    parser.add_argument("--epochs", type=int, default=3, help="of training before the bias, 0 for the cost alone")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    head = ("length", "data", "rows", "rows taken", "window, median", "ratio to 1×", "share of the layer's own work")
    if options.rounds:
        print(table(costs(options.batches, options.rounds), head), flush=True)
    if not options.epochs:
        return
    images, labels = archive(options.images) if options.images else digits()
    multiples = tuple(f"{m} × width" for m in (2, 4, 8, 16, 32))
    head = ("layer", "width", "all rows", "saturation", *multiples, "auto (rows)")
    print("\n" + table(bias(images, labels, options.epochs), head))
    print(machine())


if __name__ == "__main__":
    main()
