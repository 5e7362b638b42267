"""The benchmarks of time and memory, and the tests that need a GPU, by one command: tables in a folder.

    python benchmarks/all.py --out results                # on a GPU within ten minutes, on a CPU smaller
    python benchmarks/all.py --out results --only overhead memory
    python benchmarks/all.py --out results --size trial   # each as small as it gets: that all of them run

Each runs in a process of its own, which is ended when its share of the time is over (four times as much without a GPU).
``results/README.md`` holds all tables with the commands that made them, ``results/NAME.txt`` all that one of them
printed. Exit status 1 where any failed.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import signal
import subprocess
import sys
import time
from datetime import date
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import torch

HERE = Path(__file__).parent


class Run(NamedTuple):
    """One command: what it is about, its arguments by size, and the most seconds that it may take."""

    about: str
    gpu: str
    cpu: str
    trial: str
    seconds: int


RUNS = {
    "overhead": Run(
        "Overhead of watching, per training step",
        "overhead.py --only VGG ResNet transformer",
        "overhead.py --clock cpu --steps 160 --only VGG transformer",
        "overhead.py --clock cpu --steps 8 --only VGG --variant mean",
        130,
    ),
    "window_cost": Run(
        "What a window costs as the data grow, and what a budget does to the numbers",
        "window_cost.py --rounds 5 --epochs 2",
        "window_cost.py --threads 1 --rounds 3 --epochs 2",
        "window_cost.py --threads 1 --rounds 1 --epochs 0 --batches 2",
        60,
    ),
    "synchronisation": Run(
        "Synchronisation over ranks",
        "synchronisation.py --ranks 2 4 --rounds 7",
        "synchronisation.py --ranks 2 --rounds 5",
        "synchronisation.py --ranks 2 --rounds 3 --widths 32 64",
        50,
    ),
    "sketch": Run(
        "Sketches",
        "sketch.py",
        "sketch.py --threads 1 --samples 4096",
        "sketch.py --threads 1 --features 128 --samples 256 --sizes 8 16",
        30,
    ),
    "memory": Run(
        "Peak memory of training",
        "memory.py",
        "memory.py --steps 6",
        "memory.py --steps 1 --only VGG --skip 'mean, sketch' 'mean, exact' 'positions, auto' 'positions, all'",
        60,
    ),
    "dimension": Run(
        "TwoNN against scikit-dimension",
        "dimension.py --pairs 3",
        "dimension.py --samples 5000 --pairs 3",
        "dimension.py --samples 300 --features 8 --pairs 3",
        40,
    ),
    "similarity": Run(
        "Similarity of all layers of two networks",
        "similarity.py --width 0.25 --rounds 1",
        "similarity.py --width 0.25 --samples 2000 --rounds 1",
        "similarity.py --width 0.0625 --samples 500 --rounds 1",
        50,
    ),
    "spectrum": Run(
        "Eigenvalue histograms of layers",
        "spectrum.py --only layer --exact",
        "spectrum.py --only errors --budgets 320 640 --seeds 2",
        "spectrum.py --only errors --budgets 320 --seeds 1",
        75,
    ),
    "deep_networks": Run(
        "A vocabulary, and many layers with few samples",
        "deep_networks.py --rounds 1 --steps 5 --size 96",
        "deep_networks.py --rounds 3",
        "deep_networks.py --rounds 1 --steps 1 --size 32",
        45,
    ),
}
GPU_TESTS = "-m pytest -m gpu -q -n 0"


def run(command: list[str], seconds: float) -> tuple[str, str]:
    """Return what ``command`` printed, and "" or why it is not all; whatever it started ends with it."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, env=_environment()
    )
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        return output, f"ended after {seconds:.0f} s"
    return output, "" if process.returncode == 0 else f"failed with status {process.returncode}"


def _environment() -> dict[str, str]:
    root = str(HERE.parent)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}


def tables(output: str) -> str:
    """Return the tables in ``output``, or its last lines where it has none."""
    lines = output.splitlines()
    groups = [list(group) for is_table, group in groupby(lines, lambda line: line.startswith("|")) if is_table]
    return "\n\n".join("\n".join(group) for group in groups) or "\n".join(["```text", *lines[-12:], "```"])


def main() -> int:
    """Run all, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the tables")
    parser.add_argument("--only", nargs="*", choices=[*RUNS, "tests"], help="these alone")
    parser.add_argument("--size", choices=["gpu", "cpu", "trial"], help="default: gpu where there is one")
    options = parser.parse_args()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    size = options.size or ("gpu" if device else "cpu")
    commands = {name: (r.about, ["benchmarks/" + getattr(r, size), r.seconds]) for name, r in RUNS.items()}
    commands["tests"] = ("Tests that need a GPU", [GPU_TESTS, 60])
    if device is None and not (options.only and "tests" in options.only):
        del commands["tests"]
    options.out.mkdir(parents=True, exist_ok=True)
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    where = f"{device or 'no GPU'}, {os.cpu_count()} processors, {versions}"
    parts, trouble = [f"# Benchmarks\n\n{date.today()}, {where}, size {size!r}.\n"], {}
    for name, (about, (arguments, seconds)) in commands.items():
        if options.only and name not in options.only:
            continue
        print(f"{name}: {arguments}", flush=True)
        begin = time.monotonic()
        words = shlex.split(arguments)
        if words[0].endswith(".py"):
            words[0] = str(HERE / Path(words[0]).name)
        output, why = run([sys.executable, *words], seconds * (1 if size == "gpu" else 4))
        (options.out / f"{name}.txt").write_text(output)
        took = f"{time.monotonic() - begin:.0f} s"
        parts.append(f"## {about}\n\n`python {arguments}` ({took}{', ' + why if why else ''})\n\n{tables(output)}\n")
        (options.out / "README.md").write_text("\n".join(parts))
        if why:
            trouble[name] = why
            print(f"{name}: {why}\n{output[-2000:]}", flush=True)
    print(f"{options.out / 'README.md'}: {len(parts) - 1} tables, {len(trouble)} of them incomplete", flush=True)
    return bool(trouble)


if __name__ == "__main__":
    sys.exit(main())
