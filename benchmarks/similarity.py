"""12 × 12 layers of a VGG13 on 10,000 images: ours streaming against google/svcca's algorithm on stored activations.

    python benchmarks/similarity.py                # each variant in processes of its own, in turns
    python benchmarks/similarity.py --width 0.5 --samples 10000 --rounds 3

Both run the same forward passes and keep directions by the same rule (99 % of the variance), every pair once, on one
thread. The other algorithm is written anew here from its publication: singular value decomposition of both sides'
centred activations for every pair of layers, then CCA through matrix square roots of the covariances. Peak memory is
that of the process above the same process that only runs the network.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from interleaved import machine, table
from networks import vgg
from torch import nn

VARIANTS = ("forward only", "ours", "google/svcca")


def vgg13(width: float) -> nn.Module:
    """Return ten convolutions and two linear layers for 32×32 images."""
    layers, channels = vgg((64, 64, 0, 128, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0), width)
    head = [nn.Flatten(), nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, 10)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), *head)


def measure(variant: str, width: float, samples: int) -> dict:
    """Return CPU seconds on one thread, peak memory in MB and the matrix of one variant; in a process of its own."""
    from lightning_saturation import capture, compare_representations

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = vgg13(width).eval()
    generator = torch.Generator().manual_seed(1)
    # Images made batch by batch, as a loader would: smooth fields, so that layers have something to respond to.
    seeds = [torch.randn(250, 3, 8, 8, generator=generator) for _ in range(samples // 250)]
    batches = [nn.functional.interpolate(seed, size=32, mode="bilinear") for seed in seeds[:1]]

    def loader():
        for seed in seeds:
            yield nn.functional.interpolate(seed, size=32, mode="bilinear")

    model(batches[0][:8])
    start = time.process_time()
    values = None
    if variant == "ours":
        values = compare_representations(model, model, loader(), progress=False).values.tolist()
    else:
        stored: dict[str, list[np.ndarray]] = {}

        def record(name: str, rows: torch.Tensor) -> None:
            if variant != "forward only":
                stored.setdefault(name, []).append(rows.numpy().T.copy())

        with torch.no_grad(), capture(model, record):
            for batch in loader():
                model(batch)
        if stored:
            activations = [np.concatenate(parts, axis=1) for parts in stored.values()]
            stored.clear()
            # One network with itself: every pair once, as ours does it too.
            values = np.zeros((len(activations), len(activations)))
            for i, x in enumerate(activations):
                for j, y in enumerate(activations[: i + 1]):
                    values[i, j] = values[j, i] = svcca(x, y)
            values = values.tolist()
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "peak": peak, "values": values}


def svcca(x: np.ndarray, y: np.ndarray) -> float:
    """Return the mean CCA coefficient of activations (features, samples), as google/svcca's tutorial computes it."""
    kept = []
    for activations in (x, y):
        centred = activations - activations.mean(axis=1, keepdims=True)
        _, s, v = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
        count = int(np.sum(np.cumsum(s**2) < 0.99 * np.sum(s**2) * (1 - 1e-12))) + 1
        kept.append(s[:count, None] * v[:count])
    split = len(kept[0])
    covariance = np.cov(*kept)
    xx, xy, yy = covariance[:split, :split], covariance[:split, split:], covariance[split:, split:]
    middle = _inverse_root(xx) @ xy @ _inverse_root(yy)
    return float(np.mean(np.linalg.svd(middle, compute_uv=False)))


def _inverse_root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(np.linalg.inv(np.atleast_2d(matrix)))
    return vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=float, default=0.5)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=VARIANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(options.only, options.width, options.samples)))
        return
    found: dict[str, list[dict]] = {variant: [] for variant in VARIANTS}
    for number in range(options.rounds):
        turn = number % len(VARIANTS)
        for variant in VARIANTS[turn:] + VARIANTS[:turn]:
            found[variant].append(_in_process(variant, options))
    rows = []
    base = statistics.median(run["peak"] for run in found["forward only"])
    for variant, runs in found.items():
        beyond = [run["seconds"] - plain["seconds"] for run, plain in zip(runs, found["forward only"], strict=True)]
        peak = statistics.median(run["peak"] for run in runs) - base
        total = statistics.median(run["seconds"] for run in runs)
        rows.append((variant, f"{total:.1f}", f"{statistics.median(beyond):.1f}", f"{peak:.0f}"))
    print(table(rows, ("variant", "CPU seconds in all", "beyond the forward passes", "peak memory beyond them, MB")))
    pairs = zip(found["ours"], found["google/svcca"], strict=True)
    ratios = [theirs["seconds"] / ours["seconds"] for ours, theirs in pairs]
    apart = np.abs(np.subtract(found["ours"][0]["values"], found["google/svcca"][0]["values"])).max()
    print(
        f"\nRatio of the times in all, theirs / ours: median {statistics.median(ratios):.2f} of {len(ratios)} rounds."
    )
    print(f"Largest difference between the two matrices: {apart:.1e}.")
    print(f"{options.samples} images, width {options.width}; {machine('numpy')}")


def _in_process(variant: str, options: argparse.Namespace) -> dict:
    command = [sys.executable, __file__, "--only", variant, "--width", str(options.width)]
    command += ["--samples", str(options.samples)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path.cwd())
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
