"""Time several variants of one step in turns, so that a busy machine slows all of them alike, and print ratios."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Mapping
from datetime import date
from importlib.metadata import version

import torch

Step = Callable[[], object]


def interleave(
    steps: Mapping[str, Step], *, rounds: int, warm_up: int = 3, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Return the seconds of every step by variant; the order within a round turns by one from round to round.

    ``time.process_time`` as ``clock`` counts this process's processor seconds: on a busy machine and with one thread
    they say what the wall clock cannot.
    """
    names = list(steps)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + warm_up):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            wait()
            start = clock()
            steps[name]()
            wait()
            if number >= warm_up:
                seconds[name].append(clock() - start)
    return seconds


def ratio(seconds: Mapping[str, list[float]], name: str, base: str) -> tuple[float, float, float, float]:
    """Return median and quartiles of the rounds' ratios ``name / base``, and the ratio of the two totals."""
    ratios = [ours / theirs for ours, theirs in zip(seconds[name], seconds[base], strict=True)]
    low, median, high = statistics.quantiles(ratios, n=4)
    return median, low, high, sum(seconds[name]) / sum(seconds[base])


def table(rows: list[tuple[str, ...]], head: tuple[str, ...]) -> str:
    """Return ``rows`` as a Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def machine(*packages: str) -> str:
    """Return date, processor, threads and versions in one line."""
    versions = ", ".join(f"{package} {version(package)}" for package in ("torch", *packages))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU threads"
    return f"{date.today()}, {platform.machine()}, {device}, Python {platform.python_version()}, {versions}"


def wait() -> None:
    """Wait until a GPU has done its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
