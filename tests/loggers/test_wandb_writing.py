from __future__ import annotations

import importlib
import sys
import warnings

import lightning.pytorch.loggers
import numpy as np
import pytest
import pytorch_lightning.loggers
import wandb

from lightning_saturation.loggers.wandb import WandbSink
from lightning_saturation.loggers.write import write_figure, write_scalars, write_table, write_text
from lightning_saturation.saturation.plots.heatmap import heatmap_figure
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
    assert written == {
        "saturation/table",
        *(f"saturation/{s}/{k}" for s in ("train", "val") for k in ("profile_table", "spectrum_table", "heatmap")),
    }
    assert {row["trainer/global_step"] for row in run.history} == {29}
    last = {stage: [r for r in history() if r.stage == stage] for stage in ("train", "val")}
    for stage, reports in last.items():
        assert run.summary[f"saturation/{stage}/diagnosis"] == str(reports[-1].diagnose(history=reports))


def test_table_is_long_with_none_where_a_number_is_missing(logger, offline_runs):
    reports = history()
    write_reports([logger], reports, step=1)
    rows = offline_runs()[0].table("saturation/table")
    by_stage = sorted(reports, key=lambda report: report.stage)
    assert rows == [record for report in by_stage for record in report.to_records()]
    assert rows[2]["saturation"] is None
    assert rows[1]["saturation"] == 0.6


def test_profile_chart_has_a_line_per_window_thinned_to_ten(logger, offline_runs):
    reports = history(windows=25, stages=("train",))
    write_reports([logger], reports, step=1)
    (run,) = offline_runs()
    points = run.table("saturation/train/profile_table")
    names = list(dict.fromkeys(point["lineKey"] for point in points))
    assert names == sorted(names)
    assert len(names) == 10
    assert [(p["step"], p["lineVal"]) for p in points if p["lineKey"] == "epoch 24"] == [(0, 0.9), (1, 0.36)]
    settings = run.chart("saturation/train/profile")["panel_config"]
    assert settings["panelDefId"] == "wandb/lineseries/v0"
    assert settings["stringSettings"] == {"title": "Saturation by layer, train (10 of 25 windows)", "xname": "layer"}


def test_spectrum_chart_is_log_log_of_the_last_window_and_says_what_is_cut(logger, offline_runs):
    report = profile([i + 1 for i in range(50)])
    write_reports([logger], [profile([90] * 50), report], step=1)
    (run,) = offline_runs()
    points = run.table("saturation/train/spectrum_table")
    last = [(p["step"], p["lineVal"]) for p in points if p["lineKey"] == "features.49"]
    np.testing.assert_allclose(last[0], (0, np.log10(1 / 50)))
    np.testing.assert_allclose(last[-1], (np.log10(50), np.log10(1 / 50)))
    assert len({p["lineKey"] for p in points}) == 12
    assert "12 of 50 layers" in run.chart("saturation/train/spectrum")["panel_config"]["stringSettings"]["title"]


def test_heatmap_is_a_real_picture(logger, offline_runs):
    write_reports([logger], history(), step=1)
    (run,) = offline_runs()
    picture = np.asarray(Image.open(run.media("saturation/val/heatmap")).convert("RGB"))
    assert min(picture.shape[:2]) > 250
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 100


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


def test_windows_on_request_and_the_other_verbs(logger, offline_runs):
    write_window([logger], profile([50, None], epoch=4), step=7)
    write_scalars([logger], {"a": 1.0, "b": float("nan")}, step=8)
    write_table([logger], "mine", [{"x": 1, "y": float("inf")}, {"x": np.float64(2.5), "z": "text"}], step=9)
    write_figure([logger], "drawn", lambda: heatmap_figure(history()[:1]), step=10)
    write_text([logger], "said", "words", step=11)
    (run,) = offline_runs()
    assert len(run.table("saturation/train/window/table")) == 2
    assert run.rows("saturation/train/window/spectrum_table")[0]["trainer/global_step"] == 7
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


def test_a_layer_keeps_its_place_in_the_profile_where_others_are_absent(logger, offline_runs):
    reports = [profile([40, 10], names=["b", "c"]), profile([90, 40, 10], names=["a", "b", "c"], epoch=1)]
    write_reports([logger], reports, step=1)
    points = offline_runs()[0].table("saturation/train/profile_table")
    assert [(p["step"], p["lineVal"]) for p in points if p["lineKey"] == "epoch 0"] == [(1, 0.4), (2, 0.1)]


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
