"""The eigenvalues that saturation needs: ours against the dense float64 solver, interleaved in one process.

    python benchmarks/spectra.py                              # 512 … 8,192 features at a saturation of 5 %
    python benchmarks/spectra.py --features 4096 --saturation 0.01 0.05 0.1

Covariances are random rotations of a power law whose exponent gives the saturation asked for at delta = 0.99.
"""

from __future__ import annotations

import argparse
import os
import time

import torch
from interleaved import interleave, machine, ratio, table

from lightning_saturation.functional.eigen import TopSpectrum, dense_spectrum, top_spectrum
from lightning_saturation.functional.spectrum import intrinsic_dimension


def power_law(features: int, saturation: float) -> torch.Tensor:
    """Return eigenvalues of which the given share holds 99 % of the sum, with a threshold that is no tie."""
    rank = torch.arange(1, features + 1, dtype=torch.float64)
    low, high = 0.1, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        wide = intrinsic_dimension(rank**-middle) > saturation * features
        low, high = (middle, high) if wide else (low, middle)
    return rank ** -(high * 1.0005)


def covariance(eigenvalues: torch.Tensor) -> torch.Tensor:
    """Return a covariance with these eigenvalues and random eigenvectors (products of reflections: O(features²))."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.diag(eigenvalues)
    for _ in range(24):
        v = torch.nn.functional.normalize(
            torch.randn(len(eigenvalues), generator=generator, dtype=torch.float64), dim=0
        )
        w = matrix @ v
        w -= v * (v @ w)
        matrix.addr_(v, w, alpha=-2).addr_(w, v, alpha=-2)
    return (matrix + matrix.T) / 2


def dimension(spectrum: TopSpectrum) -> int:
    """Return the intrinsic dimension at delta = 0.99."""
    sums = spectrum.eigenvalues.clamp(min=0).cumsum(0)
    slack = spectrum.total * spectrum.features * torch.finfo(torch.float64).eps
    return int((sums < 0.99 * spectrum.total - slack).sum()) + 1


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=int, nargs="+", default=[512, 1024, 2048, 4096, 8192])
    parser.add_argument("--saturation", type=float, nargs="+", default=[0.05])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for features in options.features:
        for wanted in options.saturation:
            matrix = covariance(power_law(features, wanted))
            dense, top = dense_spectrum(matrix), top_spectrum(matrix)
            rounds = max(2, options.rounds if features <= 4096 else 2)
            seconds = interleave(
                {"dense": lambda m=matrix: dense_spectrum(m), "ours": lambda m=matrix: top_spectrum(m)},
                rounds=rounds,
                warm_up=0,
                # One thread's processor seconds say the same on a busy machine.
                clock=time.process_time if options.threads == 1 else time.perf_counter,
            )
            median, low, high, _ = ratio(seconds, "ours", "dense")
            rows.append(
                (
                    f"{features:,}",
                    f"{dimension(dense) / features:.3f}",
                    f"{dimension(dense)} / {dimension(top)}",
                    "dense" if top.complete else "Krylov",
                    f"{min(seconds['dense']):.2f} s",
                    f"{min(seconds['ours']):.2f} s",
                    f"{median:.2f} ({low:.2f} – {high:.2f})",
                )
            )
            print(rows[-1], flush=True)
    head = ("features", "saturation", "k dense / ours", "way", "dense, best", "ours, best", "ratio (quartiles)")
    print(table(rows, head))
    print(machine("scipy"))


if __name__ == "__main__":
    main()
