"""Train one network as Shenk et al. do (section 3.1), watch it, measure it, and leave a record of all numbers.

    python examples/paper/run.py --list                              the runs of plan.py, cheapest first
    python examples/paper/run.py photos_vgg11_0.25_s0                  a run of the plan: its record, results/NAME.json
    python examples/paper/run.py photos_vgg11_0.25_s0 --again dimension    measure once more what was trained

A run that was killed goes on with the epoch it was in, a finished one is left alone. Training is recorded first; a
measurement that fails leaves its error in the record, and the others.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # examples/, where `common` and `paper` are

import lightning
import torch
from common import quiet

from lightning_saturation import SaturationMonitor
from paper.measure import MEASUREMENTS, Subject
from paper.plan import find, plan
from paper.record import read, rounded, series, write
from paper.settings import Settings, small
from paper.training import HERE, Inputs, Places, alone, fit, inputs_of, keep, subject


def run(settings: Settings, places: Places, *, again: Sequence[str] = (), progress: bool = False) -> dict[str, Any]:
    """Return the record of the run, trained and measured as far as that was still to be done."""
    path = places.results / f"{settings.name}.json"
    record = read(path)
    if record.get("finished") and not again:
        return record
    inputs = inputs_of(settings, places)
    weights = places.of(settings.name, "weights")
    if not record or not weights.exists():
        record = _train(settings, inputs, places, progress)
        write(path, record)
    measured = subject(settings, inputs, weights)
    for name, measurement in MEASUREMENTS.items():
        if name not in again and name in record["measured"]:
            continue
        _measure(record, name, measurement, measured)
        write(path, record)
    record["finished"] = True
    write(path, record)
    return record


def _train(settings: Settings, inputs: Inputs, places: Places, progress: bool) -> dict[str, Any]:
    pooling = "positions" if settings.task == "predict" else "mean"
    monitor = SaturationMonitor(stages=("train", "val"), pooling=pooling)
    network, rows = fit(settings, inputs, places, callbacks=[monitor], progress=progress)
    keep(network, places.of(settings.name, "weights"))
    return {
        "settings": settings.to_record(),
        "data": inputs.description,
        "versions": {"torch": torch.__version__, "lightning": lightning.__version__},
        "parameters": sum(p.numel() for p in network.parameters()),
        "seconds": rounded(sum(row["seconds"] for row in rows)),
        "processor_seconds": rounded(sum(row["processor_seconds"] for row in rows)),
        "finished": False,
        "rows": rows,
        **{stage: series(monitor.reports, stage) for stage in ("train", "val")},
        "measured": {},
        "seconds_of": {},
        "failures": {},
    }


def _measure(record: dict[str, Any], name: str, measurement: Any, of: Subject) -> None:
    """Add one measurement to ``record``, or say why there is none: hours of training must not hang on it."""
    start = time.perf_counter()
    record["failures"].pop(name, None)
    try:
        record["measured"][name] = measurement(of)
    except Exception as error:
        record["measured"][name] = None
        record["failures"][name] = f"{type(error).__name__}: {error}"
        traceback.print_exc()
    record["seconds_of"][name] = rounded(time.perf_counter() - start, 3)


def main() -> int:
    options = _arguments()
    if options.list:
        print("\n".join(settings.name for settings in plan()))
        return 0
    quiet()
    places = Places(options.data, options.cache, options.results)
    try:
        settings = small(find(options.name)) if options.scale == "small" else find(options.name)
        with alone(places.of(f"{settings.name}.lock", "locks")) as free:
            if not free:
                print(f"{settings.name}: another process is at it", file=sys.stderr)
                return 3
            record = run(settings, places, again=options.again, progress=options.progress)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    last = record["rows"][-1]
    told = " ".join(f"{key} {last[key]:.3f}" for key in ("val/loss", "val/accuracy") if key in last)
    failures = "".join(f"; no {name}: {why}" for name, why in record["failures"].items())
    print(
        f"{settings.name}: {told}, average saturation {last['saturation/val/average']:.3f},"
        f" {record['seconds']:.0f} s{failures}"
    )
    return 0


def arguments(description: str) -> argparse.ArgumentParser:
    """Return a parser with the arguments that a run and the queue share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data/cifar10", help="CIFAR-10 as class/image files, or 'digits'")
    parser.add_argument("--cache", type=Path, default=HERE / ".cache", help="decoded images, checkpoints, weights")
    parser.add_argument("--results", type=Path, help="where records go (examples/paper/results)")
    parser.add_argument("--scale", choices=("paper", "small"), default="paper", help="small: seconds, for tests")
    return parser


def _arguments() -> argparse.Namespace:
    parser = arguments(__doc__ or "")
    parser.add_argument("name", nargs="?", help="a run of the plan")
    parser.add_argument("--list", action="store_true", help="print the names of all runs, cheapest first")
    parser.add_argument("--again", nargs="+", default=(), choices=MEASUREMENTS, help="measurements to take once more")
    parser.add_argument("--progress", action="store_true", help="show Lightning's bar")
    options = parser.parse_args()
    if not options.list and not options.name:
        parser.error("expected the name of a run, or --list")
    return placed(options)


def placed(options: argparse.Namespace) -> argparse.Namespace:
    """Return ``options`` with the folder of the records: small runs never get among the committed ones."""
    if options.results is None:
        options.results = HERE / "results" if options.scale == "paper" else options.cache / "small"
    return options


if __name__ == "__main__":
    sys.exit(main())
