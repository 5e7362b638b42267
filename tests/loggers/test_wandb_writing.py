from __future__ import annotations

import importlib
import sys
import warnings

import lightning.pytorch.loggers
import numpy as np
import pytest
import pytorch_lightning.loggers
import wandb

from lightning_saturation.loggers.dispatch import write_figure, write_scalars, write_table, write_text
from lightning_saturation.loggers.wandb import WandbSink
from lightning_saturation.saturation.plots.windows import heatmap_figure
from lightning_saturation.saturation.report.report import SaturationReport
from lightning_saturation.saturation.writing import write_reports, write_window
from tests.profiles import profile

Image = pytest.importorskip("PIL.Image")


@pytest.fixture(params=[lightning.pytorch.loggers.WandbLogger, pytorch_lightning.loggers.WandbLogger])
def either_logger(request, tmp_path, offline_runs):
    return start(request.param, tmp_path)


@pytest.fixture
def logger(tmp_path, offline_runs):
    return start(lightning.pytorch.loggers.WandbLogger, tmp_path)


def start(logger_class, folder, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        logger = logger_class(save_dir=folder, **options)
        logger.experiment  # noqa: B018
    return logger


def history(windows=3, stages=("train", "val")):
    return [profile([90, 60 - e, None], epoch=e, stage=stage) for e in range(windows) for stage in stages]


def test_the_whole_report_lands_at_the_given_step(either_logger, offline_runs):
    write_reports([either_logger], history(), step=29)
    (run,) = offline_runs()
    written = {key for row in run.history for key in row if key.startswith("saturation/")}
    kinds = ("picture", "heatmap", "spectrum", "profile_table")
    assert written == {"saturation/table", *(f"saturation/{s}/{k}" for s in ("train", "val") for k in kinds)}
    assert {row["trainer/global_step"] for row in run.history} == {29}
    last = {stage: [r for r in history() if r.stage == stage] for stage in ("train", "val")}
    for stage, reports in last.items():
        assert run.summary[f"saturation/{stage}/diagnosis"] == str(reports[-1].diagnose(history=reports))


def test_table_is_long_with_none_where_a_number_is_missing_and_says_which_window_is_the_last(logger, offline_runs):
    write_reports([logger], history(), step=1)
    rows = offline_runs()[0].table("saturation/table")
    by_stage = sorted(history(), key=lambda report: report.stage)
    records = [{**record, "last": report.epoch == 2} for report in by_stage for record in report.to_records()]
    assert rows == records
    assert rows[2]["saturation"] is None
    assert rows[1]["saturation"] == 0.6
    assert [(row["stage"], row["epoch"]) for row in rows if row["last"]] == 3 * [("train", 2)] + 3 * [("val", 2)]


def test_profile_is_one_line_for_each_run_over_relative_depth(logger, offline_runs):
    write_reports([logger], history(windows=25, stages=("train",)), step=1)
    (run,) = offline_runs()
    points = run.table("saturation/train/profile_table")
    assert points == [
        {"depth": 0, "saturation": 0.9, "layer": "features.0"},
        {"depth": 0.5, "saturation": 0.36, "layer": "features.1"},
    ]
    chart = run.chart("saturation/train/profile")["panel_config"]
    assert chart["panelDefId"] == "wandb/line/v0"  # one line for each run, in the run's colour
    assert chart["fieldSettings"] == {"x": "depth", "y": "saturation", "stroke": None}
    (query,) = chart["userQuery"]["queryFields"]
    assert {"id", "name"} <= {field["name"] for field in query["fields"]}


def test_what_sweeps_sort_by_is_flat_in_the_summary_and_makes_no_panel(logger, offline_runs):
    write_reports([logger], [profile([40, 90, 40, 30, 4, 3, 90], output=True)], step=1)
    (run,) = offline_runs()
    known = {key: run.summary[f"saturation/train/{key}"] for key in ("max", "tail_layers", "bottlenecks")}
    assert known == {"max": 0.9, "tail_layers": 2, "bottlenecks": 1}
    assert "\n" not in run.summary["saturation/train/verdict"]
    assert run.summary["saturation/train/verdict"].startswith("Bottleneck: features.1 uses 90 %")
    assert run.summary["saturation/train/too_few_samples"] == 0
    assert not any(run.rows(f"saturation/train/{key}") for key in known)


@pytest.mark.pictures
def test_pictures_are_real(logger, offline_runs):
    write_reports([logger], history(), step=1)
    (run,) = offline_runs()
    for kind in ("picture", "heatmap", "spectrum"):
        picture = np.asarray(Image.open(run.media(f"saturation/val/{kind}")).convert("RGB"))
        assert min(picture.shape[:2]) > 250, kind
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 100, kind


def test_table_above_the_limit_is_thinned_by_whole_windows_and_says_so(logger, offline_runs):
    layers = profile([50] * 30).layers
    reports = [SaturationReport(layers, "train", epoch, step=epoch) for epoch in range(400)]
    with pytest.warns(UserWarning, match="'saturation/table' holds 333 of 400 windows: W&B takes 10,000 rows"):
        write_reports([logger], reports, step=1)
    rows = offline_runs()[0].table("saturation/table")
    assert len(rows) == 333 * 30
    assert {row["thinned"] for row in rows} == {"333 of 400 windows"}
    assert rows[0]["epoch"] == 0
    assert rows[-1]["epoch"] == 399


@pytest.mark.pictures
def test_windows_on_request_and_the_other_verbs(logger, offline_runs):
    write_window([logger], profile([50, None], epoch=4), step=7)
    write_scalars([logger], {"a": 1.0, "b": float("nan")}, step=8)
    write_table([logger], "mine", [{"x": 1, "y": float("inf")}, {"x": np.float64(2.5), "z": "text"}], step=9)
    write_figure([logger], "drawn", lambda: heatmap_figure(history()[:1]), step=10)
    write_text([logger], "said", "words", step=11)
    (run,) = offline_runs()
    assert len(run.table("saturation/train/window/table")) == 2
    assert run.rows("saturation/train/spectrum")[0]["trainer/global_step"] == 7
    assert [row["a"] for row in run.rows("a")] == [1.0]
    assert not run.rows("b")
    assert run.table("mine") == [{"x": 1, "y": None, "z": None}, {"x": 2.5, "y": None, "z": "text"}]
    assert run.media("drawn").stat().st_size > 1000
    assert run.summary["said"] == "words"


def test_the_prefix_of_the_logger_is_respected(tmp_path, offline_runs):
    logger = start(lightning.pytorch.loggers.WandbLogger, tmp_path, prefix="mine")
    write_reports([logger], history(), step=1)
    write_text([logger], "said", "words", step=1)
    (run,) = offline_runs()
    assert run.rows("mine-saturation/table")
    assert run.summary["mine-said"] == "words"


def test_runs_of_one_process_do_not_mix(tmp_path, offline_runs):
    for value in (20, 70):
        logger = start(lightning.pytorch.loggers.WandbLogger, tmp_path)
        write_reports([logger], [profile([value])], step=value)
        wandb.finish()
    runs = offline_runs()
    assert [[row["saturation"] for row in run.table("saturation/table")] for run in runs] == [[0.2], [0.7]]
    assert [run.rows("saturation/table")[0]["trainer/global_step"] for run in runs] == [20, 70]


def test_a_finished_run_costs_one_warning(logger, offline_runs):
    wandb.finish()
    with pytest.warns(UserWarning, match="WandbLogger could not be written to") as caught:
        write_reports([logger], history(), step=1)
    assert len(caught) == 1
    assert "training goes on. UsageError: Run" in str(caught[0].message)


def test_a_server_that_takes_no_tables_leaves_picture_and_diagnosis(tmp_path, offline_runs):
    class NoTables(lightning.pytorch.loggers.WandbLogger):
        def log_metrics(self, metrics, step=None):
            if not all(isinstance(value, wandb.Image) for value in metrics.values()):
                raise wandb.errors.AuthenticationError("the service process did not respond in time")
            super().log_metrics(metrics, step)

    with pytest.warns(UserWarning, match="NoTables could not be written to; training goes on. AuthenticationError"):
        write_reports([start(NoTables, tmp_path)], history(stages=("train",)), step=1)
    (run,) = offline_runs()
    assert run.media("saturation/train/heatmap").exists()
    assert "saturation/train/diagnosis" in run.summary


def test_reports_in_which_nothing_is_known_are_written_as_missing(logger, offline_runs):
    write_reports([logger], [profile([None, None])], step=1)
    (run,) = offline_runs()
    assert [row["saturation"] for row in run.table("saturation/table")] == [None, None]
    assert run.media("saturation/train/heatmap").exists()
    assert "average saturation missing" in run.summary["saturation/train/diagnosis"]


def test_a_layer_that_is_missing_leaves_its_place_in_the_profile_empty(logger, offline_runs):
    write_reports([logger], [profile([90, None, 10])], step=1)
    points = offline_runs()[0].table("saturation/train/profile_table")
    assert [(p["depth"], p["saturation"]) for p in points] == [(0, 0.9), (1, 0.1)]


def test_a_disabled_run_is_left_alone(tmp_path, offline_runs, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    logger = start(lightning.pytorch.loggers.WandbLogger, tmp_path)
    monkeypatch.setattr(logger, "log_metrics", lambda *_, **__: pytest.fail("written to a disabled run"))
    write_reports([logger], history(), step=1)
    assert not offline_runs()


def test_subclasses_of_the_logger_are_known(tmp_path, offline_runs):
    class Mine(lightning.pytorch.loggers.WandbLogger):
        pass

    from lightning_saturation.loggers.dispatch import sink_for

    assert isinstance(sink_for(Mine(save_dir=tmp_path)), WandbSink)


def test_everything_else_works_without_wandb(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    importlib.reload(sys.modules["lightning_saturation.loggers.wandb"])
    other = lightning.pytorch.loggers.CSVLogger(tmp_path)
    write_reports([other], history(), step=1)
    write_scalars([other], {"a": 1.0}, step=1)
    assert other.experiment.metrics
