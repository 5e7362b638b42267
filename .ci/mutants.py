"""How many small errors in the functions of the instruments the tests see: a random sample of mutants, each tested.

    python .ci/mutants.py --count 300 --seed 0               # a sample of all functions
    python .ci/mutants.py --only operators --count 100       # of one room, or of one file

A mutant differs from a file in one place: an operator, a comparison, a number, a condition, a call left out. It runs
against the tests that its room names, shortest first, in a fork of this process that reads the changed text in place of
the file, up to the first failure. Tests longer than ``--longest`` seconds are left out, so that the score is a lower
bound. Runs on Linux and macOS.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.machinery
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from places import places

PACKAGE = Path("lightning_saturation")
# Files of pure functions, and the tests that know them.
TESTS = {
    "covariance/eigenvalues.py": "covariance/test_eigenvalues.py covariance/test_spectrum.py covariance/test_gram.py",
    "covariance/gram.py": "covariance/test_gram.py covariance/test_eigenvalues.py",
    "covariance/moments.py": "covariance/test_moments.py covariance/test_precision.py covariance/test_covariance.py",
    "covariance/precision.py": "covariance/test_precision.py covariance/test_moments.py",
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
    "dimension/pca.py": "dimension/test_pca.py",
    "dimension/two_nn.py": "dimension/test_two_nn.py",
    "dimension/two_nn_law.py": "dimension/test_two_nn.py",
    "operators/arpack.py": "operators/test_density.py operators/test_layer_operator.py",
    "operators/chebyshev.py": "operators/test_density.py",
    "operators/circular.py": "operators/test_circular.py",
    "operators/convolution_geometry.py": "operators/test_layer_operator.py",
    "operators/density.py": "operators/test_density.py",
    "operators/histogram.py": "operators/test_decay.py operators/test_density.py",
    "operators/layer_operator.py": "operators/test_layer_operator.py operators/test_density.py",
    "operators/linear_map.py": "operators/test_layer_operator.py operators/test_density.py",
    "operators/products.py": "operators/test_density.py",
}


def in_fork(path: Path, text: bytes | None, tests: list[str], seconds: float, note: Path, skip: set[str]) -> str:
    """Return "passed", "failed" or "late": pytest on ``tests`` with ``text`` for the file ``path``."""
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 1)
            os.dup2(nothing.fileno(), 2)
        os._exit(_test(path, text, tests, note, skip))
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return "passed" if os.waitstatus_to_exitcode(status) == 0 else "failed"
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "late"


def _test(path: Path, text: bytes | None, tests: list[str], note: Path, skip: set[str]) -> int:
    import pytest

    if text is not None:
        try:
            _change(path, text)
        except BaseException:  # it does not even load
            return 1
    order = json.loads(note.read_text()) if note.exists() else {}
    seen: dict[str, float] = {}

    class Plugin:
        def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
            items[:] = sorted((i for i in items if i.nodeid not in skip), key=lambda i: order.get(i.nodeid, 0.0))

        @pytest.hookimpl(hookwrapper=True)
        def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
            begin = time.process_time()
            yield
            seen[item.nodeid] = time.process_time() - begin

    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "addopts=--import-mode=importlib"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # what is imported already is not tested here
    code = int(pytest.main([*options, "--doctest-modules", *tests], plugins=[Plugin()]))
    if text is None:
        note.write_text(json.dumps(seen))
    return code


def _change(path: Path, text: bytes) -> None:
    """Load the module at ``path`` anew from ``text``, and put what is in it wherever the old one is known."""
    name, changed = ".".join(path.with_suffix("").parts), str(path.resolve())
    loader = importlib.machinery.SourceFileLoader
    read = loader.get_data

    def get_data(self: object, file: str) -> bytes:
        if file.endswith(".pyc"):
            raise OSError  # of the unchanged file
        return text if file == changed else read(self, file)

    loader.get_data, loader.set_data = get_data, lambda *_, **__: None
    old = sys.modules.pop(name)
    new = importlib.import_module(name)
    loader.get_data = read
    values = {id(value): vars(new)[key] for key, value in vars(old).items() if key in vars(new) and key[:2] != "__"}
    values[id(old)] = new
    for module in [m for n, m in sys.modules.items() if n.startswith(f"{PACKAGE}") and m is not new]:
        for key, value in list(vars(module).items()):
            known = id(value) in values and not isinstance(value, int | str | type(None))
            if known or vars(old).get(key) is value:
                setattr(module, key, values.get(id(value), value))


def main() -> int:
    """Print each mutant that lives, and the score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300, help="mutants in the sample (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (default: %(default)s)")
    parser.add_argument("--only", default="", help="rooms or files that begin so")
    parser.add_argument("--longest", type=float, default=5.0, help="processor seconds; longer tests are left out")
    arguments = parser.parse_args()
    sys.path.insert(0, ".")
    for name in ("tests.conftest", str(PACKAGE), f"{PACKAGE}.functional", "sklearn.datasets", "sklearn.linear_model"):
        importlib.import_module(name)  # once, here, and not in each fork
    everything = [(name, place) for name in TESTS for place in places(PACKAGE / name)]
    sample = random.Random(arguments.seed).sample(everything, min(arguments.count, len(everything)))
    chosen = sorted(pair for pair in sample if pair[0].startswith(arguments.only))
    print(f"{len(chosen)} of {len(everything)} mutants, seed {arguments.seed}", flush=True)
    lived: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in dict.fromkeys(name for name, _ in chosen):
            path, note = PACKAGE / name, Path(folder) / name.replace("/", "-")
            tests = [f"tests/{each}" for each in TESTS[name].split()] + [str(path)]
            begin = time.monotonic()
            if in_fork(path, None, tests, 3600, note, set()) != "passed":
                print(f"{name}: its tests fail without any change")
                return 1
            skip = {test for test, took in json.loads(note.read_text()).items() if took > arguments.longest}
            limit, killed = 30 + 5 * (time.monotonic() - begin), 0
            own = [place for each, place in chosen if each == name]
            for line, old, new, first, last in own:
                raw = path.read_bytes()
                if in_fork(path, raw[:first] + new.encode() + raw[last:], tests, limit, note, skip) != "passed":
                    killed += 1
                else:
                    lived.append(f"{name}:{line}: {' '.join(old.split())}  ->  {' '.join(new.split())}")
                    print(lived[-1], flush=True)
            left = f", {len(skip)} tests left out" if skip else ""
            print(f"{name}: {killed} of {len(own)} killed{left} ({time.monotonic() - begin:.0f} s)", flush=True)
    print(f"{len(chosen) - len(lived)} of {len(chosen)} killed: {1 - len(lived) / max(len(chosen), 1):.1%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
