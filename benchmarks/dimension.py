"""TwoNN, ours against scikit-dimension: time as interleaved pairs, memory as the peak of a process of its own.

    python benchmarks/dimension.py                                  # 10,000 x 512, five pairs
    python benchmarks/dimension.py --samples 20000 --features 1024 --pairs 1

Both get the same float32 rows. A pair runs one after the other, in alternating order, so that a busy machine slows
both; the figure to read is the median of the pairs' ratios.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import torch

from lightning_saturation.functional import two_nn_dimension


def rows(samples: int, features: int, dimension: int, offset: float) -> torch.Tensor:
    """Return a curved manifold of ``dimension`` in ``features`` coordinates, float32."""
    generator = torch.Generator().manual_seed(0)
    inner = torch.randn(samples, dimension, generator=generator)
    outer = torch.tanh(inner @ torch.randn(dimension, features, generator=generator) / dimension**0.5)
    return outer + offset


def ours(x: torch.Tensor) -> float:
    return float(two_nn_dimension(x))


def theirs(x: torch.Tensor) -> float:
    import skdim

    return float(skdim.id.TwoNN().fit(x.numpy()).dimension_)


METHODS: dict[str, Callable[[torch.Tensor], float]] = {"ours": ours, "scikit-dimension": theirs}


def peak(connection: Connection, name: str, shape: tuple[int, int, int, float], threads: int) -> None:
    """Send seconds, dimension, and the process's peak memory in MiB before and after the call."""
    torch.set_num_threads(threads)
    x = rows(*shape)
    METHODS[name](x[:200])  # imports and thread pools
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = time.perf_counter()
    dimension = METHODS[name](x)
    seconds = time.perf_counter() - start
    connection.send((seconds, dimension, before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def memory(name: str, shape: tuple[int, int, int, float], threads: int) -> tuple[float, float, float, float]:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=peak, args=(sender, name, shape, threads))
    process.start()
    result: tuple[float, float, float, float] = receiver.recv()
    process.join()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--features", type=int, default=512)
    parser.add_argument("--dimension", type=int, default=20)
    parser.add_argument("--offset", type=float, default=0.0)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", choices=list(METHODS), help="measure the memory of one method and nothing else")
    options = parser.parse_args()
    shape = (options.samples, options.features, options.dimension, options.offset)
    print(f"{options.samples:,} x {options.features:,} float32, {options.threads} threads, offset {options.offset:g}\n")
    print("| method | dimension | seconds | peak MiB | of which before the call |\n|---|---|---|---|---|")
    for name in [options.only] if options.only else METHODS:
        seconds, dimension, before, after = memory(name, shape, options.threads)
        print(f"| {name} | {dimension:.7f} | {seconds:.2f} | {after:,.0f} | {before:,.0f} |", flush=True)
    if options.only or not options.pairs:
        return
    torch.set_num_threads(options.threads)
    x = rows(*shape)
    names = list(METHODS)
    for name in names:
        METHODS[name](x[:200])
    print("\n| pair | ours | scikit-dimension | ratio |\n|---|---|---|---|")
    ratios = []
    for pair in range(options.pairs):
        seconds = {}
        for name in names if pair % 2 else reversed(names):
            start = time.perf_counter()
            METHODS[name](x)
            seconds[name] = time.perf_counter() - start
        ratios.append(seconds["scikit-dimension"] / seconds["ours"])
        print(
            f"| {pair + 1} | {seconds['ours']:.2f} s | {seconds['scikit-dimension']:.2f} s | {ratios[-1]:.1f} |",
            flush=True,
        )
    print(f"\nmedian ratio {statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})")


if __name__ == "__main__":
    main()
