from __future__ import annotations

import csv
import json
import logging
import os
import sys
import uuid
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
import yaml
from joblib.externals.loky import reusable_executor
from lightning.pytorch import LightningDataModule, Trainer

from lightning_saturation import SaturationMonitor, sweep
from tests.sweeping.networks import Small, loader, noted, trial
from tests.tiny import quiet

sys.path.insert(0, str(Path(__file__).parents[1] / "integration"))

import programs

pytestmark = quiet
ROOT = Path(__file__).parents[2]
ONCE = {"max_epochs": 1, "accelerator": "cpu"}


def run(out, grid=None, *, metric="val/accuracy", given=trial, **options):
    return sweep(given, grid or {"width": [4, 8]}, out=out, metric=metric, trainer=ONCE, progress=False, **options)


def test_every_combination_is_trained_and_ranked(tmp_path):
    outcome = run(tmp_path, {"width": [4, 8], "rate": [0.0, 1.0]}, workers=1)
    assert len(outcome.results) == 4
    values = [result["value"] for result in outcome.results]
    assert values == sorted(values, reverse=True)
    assert outcome.best is outcome.results[0]
    assert {(r["config"]["width"], r["config"]["rate"]) for r in outcome.results} == {
        (4, 0.0),
        (4, 1.0),
        (8, 0.0),
        (8, 1.0),
    }
    for result in outcome.results:
        assert set(result["layers"]) == {"body.0", "body.2", "body.4"}
        assert 0 < result["average"] <= 1
        assert result["parameters"] == sum(p.numel() for p in Small(result["config"]["width"]).parameters())
        assert result["epochs"] == 1
    assert "rank" in str(outcome).splitlines()[0]
    assert outcome.best["verdict"] in str(outcome)
    rows = list(csv.DictReader((tmp_path / "ranking.csv").read_text().splitlines()))
    assert [float(row["val/accuracy"]) for row in rows] == values
    assert (tmp_path / "scatter.png").read_bytes().startswith(b"\x89PNG")
    assert repr(outcome) == "SweepOutcome(4 trials by val/accuracy, 0 failed)"


def test_a_sweep_says_what_differs_and_nothing_of_each_trainer(tmp_path, caplog):
    root = logging.getLogger("lightning.pytorch")
    before = root.level
    with caplog.at_level(logging.INFO):
        outcome = run(tmp_path, {"width": [4, 8], "rate": [0.5]})
    assert caplog.messages == []
    assert root.level == before
    assert "width=4 " in str(outcome)
    assert "rate" not in str(outcome)
    assert "rate=0.5, width=4" in str(run(tmp_path, {"width": [4], "rate": [0.5]}))


def test_a_list_of_grids_is_their_sum(tmp_path):
    outcome = run(tmp_path, [{"width": [4]}, {"width": [8], "rate": [0.0, 0.5]}])
    assert sorted(map(str, (r["config"] for r in outcome.results))) == [
        "{'rate': 0.0, 'width': 8}", "{'rate': 0.5, 'width': 8}", "{'width': 4}",
    ]  # fmt: skip
    assert not (tmp_path / "sweep.yaml").exists()  # W&B knows one grid


def test_a_trial_is_the_same_alone_beside_others_and_in_a_process(tmp_path):
    alone = run(tmp_path / "alone", {"width": [8]}).best
    beside = {r["config"]["width"]: r for r in run(tmp_path / "beside", {"width": [4, 8]}).results}[8]
    away = {r["config"]["width"]: r for r in run(tmp_path / "away", {"width": [8, 4]}, workers=2).results}[8]
    for other in (beside, away):
        assert {**other, "seconds": 0} == {**alone, "seconds": 0}
    assert run(tmp_path / "other", {"width": [8]}, seed=1).best["layers"] != alone["layers"]


def test_a_loss_is_ranked_upwards(tmp_path):
    values = [
        result["value"] for result in run(tmp_path, {"rate": [0.0, 1.0], "width": [8]}, metric="val/loss").results
    ]
    assert values == sorted(values)
    down = run(tmp_path, {"rate": [0.0, 1.0], "width": [8]}, metric="val/loss", maximize=True)
    assert [result["value"] for result in down.results] == values[::-1]


def test_what_has_finished_is_not_run_again(tmp_path):
    grid = {"width": [4], "starts": [str(tmp_path / "starts")]}
    first = run(tmp_path, grid, given=noted)
    both = run(tmp_path, {**grid, "width": [4, 8]}, given=noted)
    assert (tmp_path / "starts").read_text().split() == ["4", "8"]
    assert first.best in both.results
    run(tmp_path, grid, given=noted, seed=1)
    run(tmp_path, grid, given=noted, metric="val/loss")
    sweep(noted, grid, out=tmp_path, metric="val/loss", trainer={**ONCE, "max_epochs": 2}, progress=False)
    assert (tmp_path / "starts").read_text().split() == ["4", "8", "4", "4", "4"]  # another question, another answer


@pytest.mark.parametrize("workers", [1, 2])
def test_a_trial_that_fails_ends_no_other_and_is_tried_again(tmp_path, workers):
    outcome = run(tmp_path, {"width": [4, 13, 8]}, workers=workers)
    assert [r["config"]["width"] for r in sorted(outcome.results, key=lambda r: r["config"]["width"])] == [4, 8]
    assert outcome.failed == {"width=13": "RuntimeError: thirteen does not work"}
    assert "Failed: width=13. RuntimeError: thirteen does not work" in str(outcome)
    assert run(tmp_path, {"width": [4, 13, 8]}).failed == outcome.failed


def test_a_metric_that_is_not_logged_is_said(tmp_path):
    outcome = run(tmp_path, {"width": [4]}, metric="accuracy")
    reason = outcome.failed["width=4"]
    assert "Expected `metric` among what was logged, [" in reason
    assert "'saturation/train/average'" in reason
    with pytest.raises(ValueError, match="Expected a finished trial, got none; failed"):
        _ = outcome.best


def test_a_trial_without_data_is_said(tmp_path):
    outcome = run(tmp_path, {"width": [4]}, given=lambda config: Small(**config))
    assert outcome.failed == {"width=4": "TypeError: Expected `trial` to return a module and its data, got Small."}


class Data(LightningDataModule):
    def train_dataloader(self):
        return loader(0)

    def val_dataloader(self):
        return loader(1)


@pytest.mark.parametrize("data", [Data(), (loader(0), loader(1)), ()])
def test_data_come_in_any_form_that_fit_takes(tmp_path, data):
    expected = run(tmp_path / "expected", {"width": [8]}).best
    found = run(tmp_path / "found", {"width": [8]}, given=lambda config: (Small(**config), data)).best
    assert {**found, "seconds": 0} == {**expected, "seconds": 0}


def test_a_trainer_and_a_monitor_of_ones_own(tmp_path):
    def trainer(config):
        monitor = SaturationMonitor(layers=["body.2"], stages=("train",))
        return Trainer(max_epochs=config["width"] // 4, logger=False, callbacks=[monitor], enable_checkpointing=False,
                       enable_progress_bar=False, enable_model_summary=False, accelerator="cpu")  # fmt: skip

    outcome = sweep(trial, {"width": [4, 8]}, out=tmp_path, metric="val/accuracy", trainer=trainer, progress=False)
    assert {r["config"]["width"]: r["epochs"] for r in outcome.results} == {4: 1, 8: 2}
    assert all(set(r["layers"]) == {"body.2"} for r in outcome.results)


@pytest.mark.parametrize("workers", [1, 2])
def test_arguments_of_the_trainer_by_configuration(tmp_path, workers):
    outcome = sweep(
        trial, {"width": [4, 8]}, out=tmp_path, metric="val/accuracy", workers=workers, progress=False,
        trainer=lambda config: {**ONCE, "max_epochs": config["width"] // 4},
    )  # fmt: skip
    assert {r["config"]["width"]: r["epochs"] for r in outcome.results} == {4: 1, 8: 2}


def test_each_trial_has_callbacks_of_its_own(tmp_path):
    callbacks = [SaturationMonitor(stages=("train",))]
    outcome = sweep(
        trial, {"width": [4, 8]}, out=tmp_path, metric="val/accuracy", trainer={**ONCE, "callbacks": callbacks},
        progress=False,
    )  # fmt: skip
    assert len(outcome.results) == 2
    assert callbacks[0].reports == []


def test_values_that_are_no_numbers(tmp_path):
    outcome = sweep(
        lambda config: (Small(), config["data"]()), {"data": [Data]}, out=tmp_path, metric="val/loss", trainer=ONCE,
        progress=False,
    )  # fmt: skip
    assert outcome.best["config"] == {"data": repr(Data)}
    assert [path.name.startswith("data=Data-") for path in (tmp_path / "trials").iterdir()] == [True]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"workers": 0}, ValueError, "Expected `workers` of at least 1, got 0"),
        ({"grid": []}, ValueError, r"Expected `grid` with at least one trial, got \[\]"),
        ({"grid": {"width": 4}}, TypeError, "width"),
        ({"trial": 3}, TypeError, "Expected `trial` to be a function or the path of a configuration, got int"),
        (
            {"trainer": Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")},
            TypeError,
            "Expected `trainer` to be arguments, .* got Trainer",
        ),
    ],
)
def test_bad_arguments_are_errors_before_anything_runs(tmp_path, arguments, error, message):
    with pytest.raises(error, match=message):
        sweep(**{"trial": trial, "grid": {"width": [4]}, "out": tmp_path, "metric": "val/loss", **arguments})
    assert list(tmp_path.iterdir()) == []


def test_a_lightning_cli_configuration(tmp_path):
    content = {
        "model": {"class_path": "tests.sweeping.networks.Small", "init_args": {"width": 4, "rate": 0.5}},
        "trainer": {"max_epochs": 1, "logger": False, "enable_checkpointing": False, "enable_progress_bar": False,
                    "enable_model_summary": False, "accelerator": "cpu"},
    }  # fmt: skip
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    grid = {"model.init_args.width": [4, 8], "trainer.max_epochs": [1, 2]}
    outcome = sweep(tmp_path / "config.yaml", grid, out=tmp_path / "out", metric="val/loss", progress=False)
    assert not outcome.failed
    found = {(r["config"]["model.init_args.width"], r["epochs"]): r["parameters"] for r in outcome.results}
    assert {key[0]: found[key] for key in found} == {w: sum(p.numel() for p in Small(w).parameters()) for w in (4, 8)}
    assert {key[1] for key in found} == {1, 2}


WIDTHS = [4, 5, 6, 7]


def _sweep_apart(grid, out, workers, token):
    """Sweep as a program would that has just begun: the workers of this process are not its own."""
    reusable_executor._executor = None
    os.environ[programs.TOKEN] = token
    run(out, grid, given=noted, workers=workers)


@pytest.mark.timeout(600)
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds stray processes through /proc")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_sweep_that_is_killed_goes_on_where_it_was(tmp_path, workers):
    starts, results = tmp_path / "starts", tmp_path / "results" / "trials"
    grid = {"width": WIDTHS, "starts": [str(starts)], "moment": [1.0]}
    token = uuid.uuid4().hex
    process = get_context("fork").Process(target=_sweep_apart, args=(grid, tmp_path / "results", workers, token))
    process.start()
    try:
        assert programs.wait_until(lambda: list(results.glob("*.json")))
        assert bool(programs.alive(token)) == (workers > 1)
        process.kill()
        process.join()
        assert programs.wait_until(lambda: not programs.alive(token), patience=60)  # workers end with it
    finally:
        process.kill()
        programs.kill(token)
    done = {path: path.stat().st_mtime_ns for path in results.glob("*.json")}
    assert 1 <= len(done) < 4
    widths = [json.loads(path.read_text())["config"]["width"] for path in done]
    before = len(starts.read_text().split())
    outcome = run(tmp_path / "results", grid, given=noted, workers=workers)
    assert not outcome.failed
    assert all(path.stat().st_mtime_ns == at for path, at in done.items())
    again = [int(width) for width in starts.read_text().split()[before:]]
    assert sorted(again + widths) == WIDTHS
    assert len(list(results.glob("*.json"))) == 4
    assert "The best, width=" in str(outcome)


def test_wandb_gets_the_same_grid_and_program(tmp_path, monkeypatch):
    program = tmp_path / "mine.py"
    program.touch()
    monkeypatch.setattr(sys, "argv", [str(program), "--fast"])
    run(tmp_path / "out", {"width": [4], "rate": [0.0, 0.5]})
    content = yaml.safe_load((tmp_path / "out" / "sweep.yaml").read_text())
    assert content == {
        "program": str(program),
        "method": "grid",
        "metric": {"name": "val/accuracy", "goal": "maximize"},
        "command": ["${env}", "${interpreter}", "${program}", "--fast"],
        "parameters": {"width": {"values": [4]}, "rate": {"values": [0.0, 0.5]}},
    }


def test_the_random_state_of_the_caller_is_that_of_the_last_trial_only_in_its_own_process(tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(())
    torch.manual_seed(5)
    run(tmp_path, {"width": [4, 8]}, workers=2)
    assert torch.rand(()) == expected
