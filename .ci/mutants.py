"""How many small errors in the functions of the instruments the tests see: a random sample of mutants, each tested.

    python .ci/mutants.py --count 300 --seed 0               # a sample of all functions
    python .ci/mutants.py --only operators --count 100       # of one room, or of one file
    python .ci/mutants.py --again survivors.txt              # those that a run before printed

A mutant differs from a file in one place: an operator, a comparison, a number, a condition, a call left out. Tests are
collected once, and run once to learn which of them reach which lines. Each mutant then is a fork of this process that
changes the code of the functions where they are, and runs the tests of its room that reach the place, those that killed
others first and short ones before long ones, up to the first failure. Tests longer than ``--longest`` seconds are left
out, so that the score is a lower bound. Runs on Linux.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from types import FrameType
from typing import Any

from change import apply
from places import Place, lines_of, places

PACKAGE = Path("lightning_saturation")
# Files of pure functions, and the tests that know them.
TESTS = {
    "covariance/eigenvalues.py": "covariance/test_eigenvalues.py covariance/test_gram.py covariance/test_pca.py",
    "covariance/moments.py": "covariance/test_moments.py covariance/test_precision.py covariance/test_covariance.py",
    "covariance/row_buffer.py": "covariance/test_row_buffer.py",
    "covariance/sketch.py": "covariance/test_sketch.py covariance/test_sketched_covariance.py",
    "covariance/sketch_bounds.py": "covariance/test_sketch_bounds.py covariance/test_sketch.py",
    "covariance/spectrum.py": "covariance/test_spectrum.py",
    "covariance/thinning.py": "covariance/test_thinning.py covariance/test_row_buffer.py",
    "similarity/cca.py": "similarity/test_cca.py similarity/test_metrics.py similarity/test_peers.py",
    "similarity/dft.py": "similarity/test_dft.py similarity/test_metrics.py",
    "similarity/kernel_alignment.py": "similarity/test_kernel_alignment.py similarity/test_metrics.py",
    "similarity/pairs.py": "similarity/test_pairs.py similarity/test_cca.py similarity/test_kernel_alignment.py",
    "dimension/copies.py": "dimension/test_two_nn.py dimension/test_metric.py",
    "dimension/neighbours.py": "dimension/test_neighbours.py dimension/test_two_nn.py",
    "dimension/two_nn.py": "dimension/test_two_nn.py",
    "dimension/two_nn_law.py": "dimension/test_two_nn.py",
    "operators/krylov.py": "operators/test_density.py operators/test_layer_operator.py",
    "operators/circular.py": "operators/test_circular.py",
    "operators/convolution_geometry.py": "operators/test_layer_operator.py",
    "operators/density.py": "operators/test_density.py",
    "operators/histogram.py": "operators/test_decay.py operators/test_density.py",
    "operators/layer_operator.py": "operators/test_layer_operator.py operators/test_density.py",
    "operators/linear_map.py": "operators/test_layer_operator.py operators/test_density.py",
    "matching/lasso.py": "matching/test_lasso.py",
    "matching/patches.py": "matching/test_patches.py",
    "matching/signs.py": "matching/test_lasso.py",
    "matching/units.py": "matching/test_units.py",
}
MOST_MEMORY = 6 * 2**30  # bytes of addresses that a mutant may take beyond this process's own


class Mutants:
    """The plugin that takes the place of running the tests."""

    def __init__(self, chosen: list[tuple[str, Place]], longest: float) -> None:
        self.chosen, self.longest = chosen, longest
        self.lived: list[str] = []
        self.broken = True  # until the tests ran as they are

    def pytest_runtestloop(self, session: Any) -> bool:
        """Test all mutants; nothing else runs."""
        begin = time.monotonic()
        took, reached = self._baseline(session)
        print(f"{len(took)} tests ({time.monotonic() - begin:.0f} s)", flush=True)
        kills: Counter[str] = Counter()
        for name in dict.fromkeys(name for name, _ in self.chosen):
            path, killed, begin = (PACKAGE / name).resolve(), 0, time.monotonic()
            own = {f"tests/{each}" for each in TESTS[name].split()} | {str(PACKAGE / name)}
            items = [i for i in session.items if i.nodeid.split("::")[0] in own and i.nodeid in took]
            long = [item for item in items if took[item.nodeid] > self.longest]
            places = [place for each, place in self.chosen if each == name]
            for place in places:
                lines = {(str(path), line) for line in lines_of(path, place)}
                near = [i for i in items if i not in long and (not lines or lines & reached[i.nodeid])]
                near.sort(key=lambda item: took[item.nodeid] / (1 + 10 * kills[item.nodeid]))
                seconds = 20 + 10 * sum(took[item.nodeid] for item in near)
                said = fork(lambda near=near, place=place, path=path: one(session, near, path, place), seconds)
                if said == "passed":
                    line, old, new, *_ = place
                    many = "" if near else "  (no test comes here)"
                    self.lived.append(f"{name}:{line}: {' '.join(old.split())}  ->  {' '.join(new.split())}{many}")
                    print(self.lived[-1], flush=True)
                else:
                    killed += 1
                    kills[said] += 1
            left = f", {len(long)} tests left out" if long else ""
            print(f"{name}: {killed} of {len(places)} killed{left} ({time.monotonic() - begin:.0f} s)", flush=True)
        return True

    def _baseline(self, session: Any) -> tuple[dict[str, float], dict[str, set[tuple[str, int]]]]:
        """Return how long every test takes, and which lines of the package it reaches; those that fail are said."""
        with tempfile.TemporaryDirectory() as folder:
            note = Path(folder) / "note"
            fork(lambda: learn(session, note), 36000)
            lines = [json.loads(line) for line in note.read_text().splitlines()]
        self.broken = not lines
        for test, failed, *_ in lines:
            if failed:
                print(f"{test} fails without any change", flush=True)
        took = {test: seconds for test, failed, seconds, _ in lines if not failed}
        reached: dict[str, set[tuple[str, int]]] = defaultdict(set)
        for test, _, _, seen in lines:
            reached[test] = {(path, line) for path, line in seen}
        return took, reached


def run(session: Any, item: Any, after: Any) -> bool:
    """Run one test and return whether it failed."""
    before = session.testsfailed
    item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
    return bool(session.testsfailed > before)


def learn(session: Any, note: Path) -> str:
    """Run all tests and write down, for each, whether it failed, its seconds and the lines that it reached."""
    root, seen = str(PACKAGE.resolve()), set[tuple[str, int]]()

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        if not frame.f_code.co_filename.startswith(root):
            return None
        seen.add((frame.f_code.co_filename, frame.f_lineno))
        return trace

    with note.open("w") as file:
        for item, after in zip(session.items, [*session.items[1:], None], strict=True):
            seen.clear()
            begin = time.process_time()
            sys.settrace(trace)
            failed = run(session, item, after)
            sys.settrace(None)
            file.write(json.dumps([item.nodeid, failed, time.process_time() - begin, sorted(seen)]) + "\n")
    return "passed"


def one(session: Any, items: list[Any], path: Path, place: Place) -> str:
    """Return the first test among ``items`` that fails with the change, or "passed"."""
    own = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (own + MOST_MEMORY, own + MOST_MEMORY))
    *_, new, first, last = place
    raw = path.read_bytes()
    try:
        apply(path, raw[:first] + new.encode() + raw[last:], session.items)
    except Exception:  # it does not even load
        return "loading"
    for item, after in zip(items, [*items[1:], None], strict=True):
        if run(session, item, after):
            return str(item.nodeid)
    return "passed"


def fork(what: Any, seconds: float) -> str:
    """Return what ``what`` returns in a fork of this process, "late" where that takes more processor seconds."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        os.setpgid(0, 0)
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 1)
            os.dup2(nothing.fileno(), 2)
        resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 1))
        try:
            os.write(write, what().encode())
        finally:
            os._exit(0)
    os.close(write)
    signal.signal(signal.SIGALRM, lambda *_: os.killpg(child, signal.SIGKILL))
    signal.alarm(int(60 + 20 * seconds))  # for what waits and does nothing
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read().decode()
    signal.alarm(0)
    os.waitpid(child, 0)
    return said or "late"


def main() -> int:
    """Print each mutant that lives, and the score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300, help="mutants in the sample (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (default: %(default)s)")
    parser.add_argument("--only", default="", help="rooms or files that begin so")
    parser.add_argument("--again", type=Path, help="a file of survivors, as printed: only these; lines may have moved")
    parser.add_argument("--longest", type=float, default=5.0, help="processor seconds; longer tests are left out")
    arguments = parser.parse_args()
    everything = [(name, place) for name in TESTS for place in places(PACKAGE / name)]
    if arguments.again:
        known = {line.split("  (no test")[0] for line in arguments.again.read_text().splitlines()}
        known = {":".join([line.split(":")[0], *line.split(":")[2:]]) for line in known}
        sample = [
            (name, place)
            for name, place in everything
            if f"{name}: {' '.join(place[1].split())}  ->  {' '.join(place[2].split())}" in known
        ]
    else:
        sample = random.Random(arguments.seed).sample(everything, min(arguments.count, len(everything)))
    chosen = sorted(pair for pair in sample if pair[0].startswith(arguments.only))
    print(f"{len(chosen)} of {len(everything)} mutants, seed {arguments.seed}", flush=True)

    sys.path.insert(0, ".")
    import pytest
    from hypothesis import Phase, settings

    # A failure is enough: nobody reads the smallest one.
    settings.register_profile("mutants", derandomize=True, phases=[Phase.explicit, Phase.generate])
    names = list(dict.fromkeys(name for name, _ in chosen))
    files = dict.fromkeys(f"tests/{each}" for name in names for each in TESTS[name].split())
    options = ["-W", "ignore::pytest.PytestAssertRewriteWarning", "-s", "--hypothesis-profile=mutants"]
    options += ["-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:terminal"]
    options += ["-o", "addopts=--strict-markers", "--doctest-modules", *files]
    plugin = Mutants(chosen, arguments.longest)
    pytest.main([*options, *(str(PACKAGE / name) for name in names)], plugins=[plugin])
    if plugin.broken:
        return 1
    lived = len(plugin.lived)
    print(f"{len(chosen) - lived} of {len(chosen)} killed: {1 - lived / max(len(chosen), 1):.1%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
