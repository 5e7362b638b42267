"""Take all runs of the plan and all studies, cheapest first, each in a process of its own.

    python examples/paper/run_all.py --jobs 2                     what is still to be done, in the background at best
    python examples/paper/run_all.py --only 'photos_vgg*' --status      how far it has come

Ctrl-C ends the runs at hand as well; the same command goes on where they were. What a run prints is in
examples/paper/.cache/logs/NAME.txt; a run that fails is named at the end, and does not hold up the others.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from fnmatch import fnmatch
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # examples/, where `paper` is

from tqdm.auto import tqdm

from paper.plan import cost, plan, priority
from paper.record import read
from paper.run import HERE, arguments, placed
from paper.settings import Settings, small
from paper.studies.bench import Study
from paper.studies.plan import studies

BUSY = 3
"""What run.py returns where another process has the run in hand."""


class Queue:
    """Starts runs and ends them with itself."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self._children: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._ended = False

    def take(self, work: Settings | Study) -> tuple[int, str]:
        """Return the exit status of one run or study and the last line that it printed."""
        options = self.options
        log = options.cache / "logs" / f"{work.name}.txt"
        log.parent.mkdir(parents=True, exist_ok=True)
        program = HERE / "studies" / "run.py" if isinstance(work, Study) else HERE / "run.py"
        command = [sys.executable, str(program), work.name, "--data", options.data]
        command += ["--cache", str(options.cache), "--results", str(options.results), "--scale", options.scale]
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(options.threads))
        with log.open("w") as file:
            with self._lock:
                if self._ended:
                    return 1, f"{work.name}: not begun"
                child = subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, **threads})
                self._children.add(child)
            status = child.wait()
            self._children.discard(child)
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return status, lines[-1] if lines else f"{work.name}: printed nothing"

    def end(self) -> None:
        """End the runs at hand and begin no other."""
        with self._lock:
            self._ended = True
            for child in self._children:
                child.terminate()


def main() -> int:
    options = _arguments()
    runs = [run for run in everything() if fnmatch(run.name, options.only)]
    done = {run.name: bool(_record(run, options).get("finished")) for run in runs}
    left = [run for run in runs if not done[run.name]]
    hours = sum(map(_cost, left)) / 3600
    finished = len(runs) - len(left)
    print(f"{finished} of {len(runs)} runs done, about {hours:.1f} hours of one slow thread left", flush=True)
    if options.status:
        return _status(runs, options)
    queue = Queue(options)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    failed = []
    form = "{l_bar}{bar}| {n:.0f}/{total:.0f} min of one slow thread [{elapsed}]"
    with ThreadPoolExecutor(options.jobs) as pool, tqdm(total=60 * hours, mininterval=30, bar_format=form) as bar:
        futures = {pool.submit(queue.take, run): run for run in left}
        try:
            for future in as_completed(futures):
                status, told = future.result()
                if status not in (0, BUSY):
                    failed.append(futures[future].name)
                bar.update(_cost(futures[future]) / 60)
                bar.write(told if status in (0, BUSY) else f"FAILED {futures[future].name}: {told}", file=sys.stdout)
                sys.stdout.flush()
        finally:
            queue.end()
            pool.shutdown(cancel_futures=True)
    if failed:
        print(f"{len(failed)} runs failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def everything() -> list[Settings | Study]:
    """Return runs and studies in the order in which they are worth taking."""
    work = [(priority(run), run.name, run) for run in plan()]
    return [each for *_, each in sorted([*work, *((study.seconds, study.name, study) for study in studies())])]


def _cost(work: Settings | Study) -> float:
    return work.seconds if isinstance(work, Study) else cost(work)


def _status(runs: list[Settings | Study], options: argparse.Namespace) -> int:
    for run in runs:
        record = _record(run, options)
        if not record:
            continue
        state = "done" if record["finished"] else "open"
        if isinstance(run, Study):
            seconds = sum(record["seconds_of"].values())
            print(f"{state}  study  {seconds:6.0f} s  {run.name}, {len(record['parts'])} parts")
            continue
        failures = ", ".join(f"no {name}: {why}" for name, why in record["failures"].items())
        last = record["rows"][-1]
        accuracy = f"{last['val/accuracy']:.3f}" if "val/accuracy" in last else "  -  "
        print(f"{state}  {accuracy}  {record['seconds']:6.0f} s  {run.name}  {failures}")
    return 0


def _record(run: Settings | Study, options: argparse.Namespace) -> dict:
    if isinstance(run, Study):
        return read(options.results / "studies" / f"{run.name}.json")
    name = small(run).name if options.scale == "small" else run.name
    return read(options.results / f"{name}.json")


def _arguments() -> argparse.Namespace:
    parser = arguments(__doc__ or "")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--threads", type=int, default=1, help="of each run")
    parser.add_argument("--only", default="*", help="runs whose names fit this glob")
    parser.add_argument("--status", action="store_true", help="show what there is, and begin nothing")
    options = placed(parser.parse_args())
    if min(options.jobs, options.threads) < 1:
        parser.error("expected jobs and threads of at least 1")
    if options.data != "digits" and not Path(options.data).exists():
        parser.error(f"expected images at {options.data}, found nothing")
    return options


if __name__ == "__main__":
    sys.exit(main())
