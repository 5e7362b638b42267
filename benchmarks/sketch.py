"""Sketched against exact covariances: memory, time and the width of the bracket, by the number of rows kept.

    python benchmarks/sketch.py                      # 2,048 features, sketches of 32 … 512 rows
    python benchmarks/sketch.py --features 16384 --samples 4096 --no-exact

Rows are Gaussian with a power-law spectrum, or, with --images, the activations of a random convolution on real images.
"""

from __future__ import annotations

import argparse
import os
import time

import torch
from interleaved import machine, table

from lightning_saturation.covariance.moments import add_rows, covariance, empty_sums, from_sums
from lightning_saturation.covariance.sketch import add_to_sketch, empty_sketch
from lightning_saturation.covariance.sketch_bounds import dimension_bracket, estimated_eigenvalues
from lightning_saturation.covariance.spectrum import covariance_eigenvalues, intrinsic_dimension


def rows_of(samples: int, features: int, power: float) -> torch.Tensor:
    """Return rows with the spectrum i^-power in directions that are no axes."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.arange(1, features + 1.0) ** (-power / 2)
    rows = torch.randn(samples, features, generator=generator) * scale
    for _ in range(8):
        v = torch.nn.functional.normalize(torch.randn(features, generator=generator), dim=0)
        rows -= 2 * torch.outer(rows @ v, v)
    return rows + 5


def bytes_of(tensors: tuple[torch.Tensor, ...]) -> float:
    """Return MiB held."""
    return sum(t.numel() * t.element_size() for t in tensors) / 2**20


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=int, default=2048)
    parser.add_argument("--samples", type=int, default=8192)
    parser.add_argument("--power", type=float, default=2.0)
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64, 128, 256, 512])
    parser.add_argument("--no-exact", action="store_true")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    # One thread's processor seconds say the same on a busy machine.
    clock = time.process_time if options.threads == 1 else time.perf_counter
    rows = rows_of(options.samples, options.features, options.power)
    lines = []
    if not options.no_exact:
        start = clock()
        sums = empty_sums(options.features)
        for part in torch.split(rows, max(1024, options.features)):
            add_rows(sums, part)
        seconds = clock() - start
        k = intrinsic_dimension(covariance_eigenvalues(covariance(from_sums(sums))))
        lines.append(("exact", f"{bytes_of(sums):.1f}", f"{seconds:.2f}", str(k), f"{k} – {k}", "0.0000"))
        print(lines[-1], flush=True)
    for size in options.sizes:
        start = clock()
        sketch = empty_sketch(options.features, size=size)
        for part in torch.split(rows, size):
            sketch, _ = add_to_sketch(sketch, part)
        seconds = clock() - start
        lower, upper = dimension_bracket(sketch)
        guess = intrinsic_dimension(estimated_eigenvalues(sketch))
        guess = min(max(guess, lower), upper)
        width = (upper - lower) / options.features
        lines.append(
            (str(size), f"{bytes_of(sketch):.1f}", f"{seconds:.2f}", str(guess), f"{lower} – {upper}", f"{width:.4f}")
        )
        print(lines[-1], flush=True)
    print(f"{options.samples:,} rows of {options.features:,} features, spectrum i^-{options.power:g}, delta = 0.99")
    head = ("rows kept", "state, MiB", "seconds", "dimension", "bracket", "width as saturation")
    print(table(lines, head))
    print(machine())


if __name__ == "__main__":
    main()
