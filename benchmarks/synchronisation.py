"""Bringing moments together over ranks: our two fused all-reduces against torchmetrics' default synchronisation.

    python benchmarks/synchronisation.py                   # 2, 3 and 4 gloo ranks, 20 × 512 and 1 × 2,048 features

Both start from the same float64 moments; rounds alternate within one process per rank. Peak memory is that of a process
of its own in which only one of the two ran. Bytes are those that a rank hands to the collective.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import tempfile
import time
from typing import Any

import torch
import torch.distributed as dist
from interleaved import machine, table
from torchmetrics import Metric

from lightning_saturation.covariance.moments import Moments
from lightning_saturation.covariance.reduction import all_reduce_moments


class Sums(Metric):
    """The same moments as plain sums, left to torchmetrics."""

    full_state_update = False

    def __init__(self, moments: Moments) -> None:
        super().__init__()
        self.add_state("n", torch.zeros((), dtype=torch.float64), "sum")
        self.add_state("s", torch.zeros_like(moments.mean), "sum")
        self.add_state("q", torch.zeros_like(moments.scatter), "sum")
        self.n, self.s, self.q = moments.samples.double(), moments.samples * moments.mean, moments.scatter.clone()
        self._update_count = 1

    def update(self) -> None:
        """Nothing: the state is given."""

    def compute(self) -> torch.Tensor:
        """Return the covariance."""
        return (self.q - torch.outer(self.s, self.s) / self.n) / (self.n - 1)


def state(rank: int, widths: list[int]) -> dict[str, Moments]:
    generator = torch.Generator().manual_seed(rank)
    moments = {}
    for number, width in enumerate(widths):
        rows = torch.randn(64, width, generator=generator, dtype=torch.float64)
        moments[f"layer {number}"] = Moments(torch.tensor(64), rows.mean(0), rows.T @ rows)
    return moments


def work(rank: int, world: int, meet: str, widths: list[int], ways: list[str], rounds: int, answers: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=world)
    moments = state(rank, widths)
    metrics = {name: Sums(m) for name, m in moments.items()} if "torchmetrics" in ways else {}

    def ours() -> None:
        all_reduce_moments(moments)

    def theirs() -> None:
        for metric in metrics.values():
            metric._computed = None
            metric.compute()

    steps = {"ours": ours, "torchmetrics": theirs}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds + 1):
        for way in ways if number % 2 else ways[::-1]:
            dist.barrier()
            start = time.perf_counter()
            steps[way]()
            dist.barrier()
            if number:
                seconds[way].append(time.perf_counter() - start)
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    if rank == 0:
        answers.put((seconds, peak))
    dist.barrier()
    dist.destroy_process_group()


def measure(world: int, widths: list[int], ways: list[str], rounds: int) -> tuple[dict[str, list[float]], float]:
    """Return seconds by way, and how far the memory of rank 0 rose above its state in MiB."""
    context = multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        arguments = (world, f"{folder}/meet", widths, ways, rounds, answers)
        ranks = [context.Process(target=work, args=(rank, *arguments)) for rank in range(world)]
        for process in ranks:
            process.start()
        result: tuple[dict[str, list[float]], float] = answers.get()
        for process in ranks:
            process.join()
    return result


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--widths", type=int, nargs="+", default=[*[512] * 20, 2048])
    options = parser.parse_args()
    sent = 8 * sum(1 + width + width**2 for width in options.widths) / 2**20
    rows = []
    for world in options.ranks:
        seconds, _ = measure(world, options.widths, ["ours", "torchmetrics"], options.rounds)
        ratios = [a / b for a, b in zip(seconds["ours"], seconds["torchmetrics"], strict=True)]
        low, median, high = statistics.quantiles(ratios, n=4)
        peaks = {way: measure(world, options.widths, [way], 1)[1] for way in ("ours", "torchmetrics")}
        rows.append(
            (
                str(world),
                f"{1000 * statistics.median(seconds['ours']):.0f} ms",
                f"{1000 * statistics.median(seconds['torchmetrics']):.0f} ms",
                f"{median:.2f} ({low:.2f} – {high:.2f})",
                f"{sent:.0f} / {sent:.0f}",
                f"{2 * sent * (world - 1) / world:.0f} / {sent * (world - 1):.0f}",
                f"{peaks['ours']:.0f} / {peaks['torchmetrics']:.0f}",
            )
        )
        print(rows[-1], flush=True)
    head = (
        "ranks",
        "ours",
        "torchmetrics",
        "ratio (quartiles)",
        "state, MiB",
        "received a rank, MiB",
        "peak above, MiB",
    )
    print(table(rows, head))
    print(machine("torchmetrics"))


if __name__ == "__main__":
    main()
