"""benchmarks/all.py: what it runs exists, what fails or takes too long is said, and tables come out of a real run."""

import importlib.util
import os
import shlex
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EVERYTHING = os.environ.get("BENCHMARKS") == "all"


@pytest.fixture(scope="module")
def module():
    spec = importlib.util.spec_from_file_location("all_benchmarks", ROOT / "benchmarks" / "all.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_benchmark_of_time_and_memory_is_run_with_arguments_that_it_has(module):
    texts = {path.name: path.read_text() for path in (ROOT / "benchmarks").glob("*.py")}
    measuring = {name for name, text in texts.items() if "machine(" in text and "__main__" in text}
    for size in ("gpu", "cpu", "trial"):
        commands = [shlex.split(getattr(run, size)) for run in module.RUNS.values()]
        assert {program for program, *_ in commands} == measuring | {"dimension.py"}
        for program, *words in commands:
            assert all(f'"{word}"' in texts[program] for word in words if word.startswith("--"))
    assert sum(run.seconds for run in module.RUNS.values()) + 60 <= 600  # with the tests, on a GPU


def test_what_fails_or_takes_too_long_is_said(module):
    assert module.run([sys.executable, "-c", "print('| a |')"], 60) == ("| a |\n", "")
    output, why = module.run([sys.executable, "-c", "print('before', flush=True); raise SystemExit(3)"], 60)
    assert (output, why) == ("before\n", "failed with status 3")
    assert module.run([sys.executable, "-c", "import time; time.sleep(60)"], 0.2)[1] == "ended after 0 s"
    assert module.tables("talk\n| a |\n| 1 |\nmore") == "| a |\n| 1 |"
    assert module.tables("| a |\ntalk\n| b |") == "| a |\n\n| b |"
    assert module.tables("2 passed") == "```text\n2 passed\n```"


@pytest.fixture
def all_of(module, monkeypatch):
    def run(out, *names):
        only = ["--only", *names] if names else []
        monkeypatch.setattr(sys, "argv", ["all.py", "--out", str(out), "--size", "trial", *only])
        return module.main()

    return run


def test_tables_come_out(all_of, tmp_path):
    assert all_of(tmp_path / "new", "sketch") == 0
    page = (tmp_path / "new" / "README.md").read_text()
    assert "## Sketches" in page
    assert "`python benchmarks/sketch.py --threads 1 --features 128" in page
    assert "| exact |" in page
    assert "exact" in (tmp_path / "new" / "sketch.txt").read_text()


@pytest.mark.timeout(1000)
@pytest.mark.skipif(not EVERYTHING, reason="minutes: all of them with BENCHMARKS=all")
def test_all_of_them_run(all_of, tmp_path):
    assert all_of(tmp_path) == 0
    assert (tmp_path / "README.md").read_text().count("\n## ") == 9
