"""The sweep example without a server: its grid, its worker processes, its results."""

import importlib
import json
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))

import programs

SWEEP = programs.ROOT / "examples" / "sweep"
needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds stray processes through /proc")


@pytest.fixture
def example(monkeypatch):
    """Return a function that imports a module of the example as the example itself does."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(SWEEP)
    yield importlib.import_module
    for name in set(sys.modules) - before:  # `settings` and `results` are nobody else's
        if name in {"settings", "results", "picture", "local", "train", "common"} or name.startswith("common."):
            del sys.modules[name]


@needs_proc
@pytest.mark.timeout(900)
def test_a_killed_sweep_finishes_what_was_left(tmp_path):
    grid = {"model": ["mlp"], "width": [0.125, 0.25, 1], "epochs": [2], "limit": [400]}
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text(yaml.safe_dump({"method": "grid", "parameters": {k: {"values": v} for k, v in grid.items()}}))
    command = [str(SWEEP / "train.py"), "--local", "--sweep", str(sweep), "--workers", "1"]
    folder = tmp_path / "results" / "sweep"
    with programs.program(command, folder=tmp_path) as (process, token):
        assert programs.wait_until(lambda: list(folder.glob("*.json")))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert programs.wait_until(lambda: not programs.alive(token), patience=20), programs.alive(token)
    first = {path: path.stat().st_mtime_ns for path in folder.glob("*.json")}
    assert 1 <= len(first) < 3
    assert not (folder / "ranking.md").exists()

    with programs.program(command, folder=tmp_path) as (process, token):
        output, _ = process.communicate(timeout=programs.PATIENCE)
        assert process.returncode == 0, output
        assert programs.alive(token) == {}
    assert "warn" not in output.lower(), output
    assert f"{len(first)} of 3 trials have finished before" in output
    found = {path: path.stat().st_mtime_ns for path in folder.glob("*.json")}
    assert len(found) == 3
    assert {path: found[path] for path in first} == first
    ranking = (folder / "ranking.md").read_text()
    assert ranking in output
    assert ranking.count("| mlp ") == 3
    assert (folder / "scatter.png").read_bytes().startswith(b"\x89PNG")
    for path in found:
        result = json.loads(path.read_text())
        assert list(result["layers"]) == ["network.input", "network.hidden", "network.output"]
        assert len(result["average_by_epoch"]) == 2
        # the output layer does not count (Shenk et al., equation 2)
        inner = [result["layers"][name] for name in ("network.input", "network.hidden")]
        assert result["average"] == result["average_by_epoch"][-1] == pytest.approx(sum(inner) / 2)


def test_the_grid_is_the_yaml_with_the_command_line_on_top(example):
    settings = example("settings")
    trials = settings.grid(SWEEP / "sweep.yaml", {})
    assert len(trials) == len(set(trials)) == 20
    assert {trial.model for trial in trials} == {"vgg11", "vgg13", "vgg16", "vgg19", "mlp"}
    fewer = settings.grid(SWEEP / "sweep.yaml", {"width": [0.5], "epochs": [3], "data": ["photos.zip"]})
    assert [(t.width, t.epochs, t.data) for t in fewer] == [(0.5, 3, "photos.zip")] * 5


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ({"method": "bayes", "parameters": {}}, "Expected `method: grid` in .*, got 'bayes'"),
        ({"method": "grid", "parameters": {"width": {"min": 0.1}}}, r"`value` or `values` for width in .*\['min'\]"),
        ({"method": "grid", "parameters": {"depth": {"value": 3}}}, "parameters among model, width, .*, got depth"),
    ],
)
def test_a_sweep_that_cannot_run_locally(example, tmp_path, sweep, message):
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(sweep))
    with pytest.raises(ValueError, match=message):
        example("settings").grid(path, {})


def _result(accuracy: float, parameters: int = 10, average: float | None = 0.3) -> dict:
    numbers = {"test_accuracy": accuracy, "parameters": parameters, "average": average, "seconds": 1.0}
    return {**numbers, "findings": [], "layers": {}, "diagnosis": "nothing to flag"}


def test_results_are_found_by_exactly_their_settings(example, tmp_path):
    results, settings = example("results"), example("settings").Settings(width=0.5)
    assert results.find(tmp_path, settings) is None
    results.save(tmp_path, settings, _result(0.9))
    assert results.find(tmp_path, settings)["test_accuracy"] == 0.9
    assert results.find(tmp_path, replace(settings, epochs=9)) is None
    results.save(tmp_path, replace(settings, width=1.0), _result(0.8))
    results.save(tmp_path, replace(settings, epochs=9), _result(0.7))
    assert [r["test_accuracy"] for r in results.comparable(tmp_path, settings)] == [0.9, 0.8]


def test_a_writer_that_fails_leaves_the_old_file(example, tmp_path):
    results, settings = example("results"), example("settings").Settings()
    path = results.save(tmp_path, settings, _result(0.9))

    def half(file):
        file.write(b'{"settings":')
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        results._replace(path, half)
    assert json.loads(path.read_text())["test_accuracy"] == 0.9
    assert list(tmp_path.iterdir()) == [path]


def test_ranking_puts_the_best_first_and_of_equals_the_smaller(example):
    results, settings = example("results"), example("settings")
    stored = [
        {"settings": {"model": "vgg11", "width": width}, **_result(*numbers)}
        for width, numbers in [(0.25, (0.8, 30, None)), (0.5, (0.9, 50)), (0.125, (0.9, 20))]
    ]
    assert settings.Settings().model == "vgg11"
    rows = results.ranked(stored)
    assert [(row["rank"], row["width"]) for row in rows] == [(1, 0.125), (2, 0.5), (3, 0.25)]
    table = results.markdown(rows)
    assert len({len(line) for line in table.splitlines()}) == 1
    assert "missing" in table.splitlines()[-1]


def test_findings_in_short_name_their_layers(example):
    layers = {f"network.{name}": 0.1 for name in ("a", "b", "c", "d", "output")}
    findings = [
        {"kind": "underparameterised", "layers": list(layers)[:4]},
        {"kind": "underparameterised", "layers": list(layers)[:4]},  # by another rule; once is enough
        {"kind": "bottleneck", "layers": ["network.b"]},
        {"kind": "overparameterised tail", "layers": ["network.b", "network.c", "network.d"]},
    ]
    result = {"settings": {"model": "mlp", "width": 1}, **_result(0.5), "layers": layers, "findings": findings}
    row, none = example("results").ranked([result, {**result, "test_accuracy": 0.1, "findings": []}])
    assert row["diagnosis"] == "underparameterised; bottleneck (b); overparameterised tail (b … d, 3 layers)"
    assert none["diagnosis"] == "nothing to flag"


def test_the_scatter_has_a_point_per_architecture(example):
    stored = [
        {"settings": {"model": model, "width": width}, **_result(width, average=0.2 + width / 2)}
        for model in ("mlp", "vgg11", "vgg19")
        for width in (0.25, 0.5)
    ]
    axes = (
        example("picture")
        .scatter([*stored, {"settings": {"model": "cnn", "width": 1}, **_result(0.5, average=None)}], "t")
        .axes
    )
    lines = [line for line in axes[0].lines if line.get_marker() not in (None, "None")]
    points = [(line.get_xdata()[0], line.get_ydata()[0]) for line in lines]
    assert points == [(r["average"], r["test_accuracy"]) for r in stored]
    # colour is width, shape is depth
    assert len({line.get_color() for line in lines}) == 2
    assert [line.get_marker() for line in lines] == ["X", "X", "o", "o", "D", "D"]
    assert "saturation" in axes[0].get_xlabel()
    assert "accuracy" in axes[0].get_ylabel()


def test_a_failed_trial_is_named_and_the_others_are_kept(example, tmp_path, monkeypatch, capsys):
    train, settings = example("train"), example("settings")
    trials = [settings.Settings(model="mlp", width=width) for width in (0.25, 0.5)]

    def outcomes(run, tasks, *, workers):
        for task in tasks:
            if task.width == 0.25:
                yield task, RuntimeError("out of memory")
            else:
                train.results.save(tmp_path, task, _result(0.9))
                yield task, _result(0.9)

    monkeypatch.setattr(train, "in_processes", outcomes)
    assert train.sweep(trials, tmp_path, workers=2) == 1
    output = capsys.readouterr()
    assert "mlp width 0.25 failed: RuntimeError: out of memory" in output.out + output.err
    assert "| 0.900 " in (tmp_path / "ranking.md").read_text() or "0.900" in output.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--local", "--data", "nowhere"], "found nothing at nowhere"),
        (["--model", "resnet"], "a network among cnn, mlp, vgg11, vgg13, vgg16, vgg19, got 'resnet'"),
        (["--width", "-1"], "`width` above 0, got -1.0"),
        (["--width", "0.25", "0.5"], "one model and one width without --local, got {'width': [0.25, 0.5]}"),
        (["--epochs", "0"], "epochs, batch_size and learning_rate above 0"),
        (["--local", "--sweep", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_mistakes_are_one_line(example, monkeypatch, capsys, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    assert example("train").main() == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())
