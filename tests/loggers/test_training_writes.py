"""What a training leaves in its loggers, read back from real runs."""

from __future__ import annotations

import csv
import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import wandb
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from torch import nn

from lightning_saturation import SaturationMonitor, SaturationStopping
from tests.loggers.runs import BATCHES, Net, quiet_lightning, train

Image = pytest.importorskip("PIL.Image")

LAYERS = ["net.0", "net.2", "net.4"]
MEDIA = {
    "saturation/table",
    *(f"saturation/{s}/{k}" for s in ("train", "val") for k in ("profile_table", "picture", "heatmap", "spectrum")),
}


@pytest.fixture
def new_logger(tmp_path, offline_runs):
    return lambda: WandbLogger(save_dir=tmp_path)


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The anonymous setting has no effect")
        yield


class Fails(Callback):
    """Raise in the middle of an epoch, as a bug, Ctrl-C or a sweep's stop command does."""

    def __init__(self, error, epoch=2):
        self.error, self.epoch = error, epoch

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (self.epoch, 2):
            raise self.error


class Finishes(Callback):
    def on_train_batch_end(self, trainer, *args):
        if trainer.current_epoch == 1:
            wandb.finish()


def steps(run, key):
    return [row["trainer/global_step"] for row in run.rows(key)]


@pytest.mark.pictures
def test_the_end_of_fit_holds_all_media_and_scalars_share_the_axis_of_lightning(new_logger, offline_runs):
    monitor = SaturationMonitor()
    train([monitor], new_logger())
    (run,) = offline_runs()
    ends = [epoch * BATCHES + BATCHES - 1 for epoch in range(3)]
    assert steps(run, "loss") == ends
    assert steps(run, "val_loss") == ends
    for stage in ("train", "val"):
        reports = [report for report in monitor.reports if report.stage == stage]
        for key in (*(f"layers/{layer}" for layer in LAYERS), "average", "converged"):
            assert steps(run, f"saturation/{stage}/{key}") == ends
        for layer in LAYERS:
            charted = [
                row[f"saturation/{stage}/layers/{layer}"] for row in run.rows(f"saturation/{stage}/layers/{layer}")
            ]
            assert charted == [report.saturation[layer] for report in reports]
        assert [row["epoch"] for row in run.rows(f"saturation/{stage}/average")] == [0, 1, 2]
        assert run.summary[f"saturation/{stage}/average"] == reports[-1].average
    assert all(steps(run, key) == ends[-1:] for key in MEDIA)
    check_media(run, monitor, epochs=3)
    check_picture(run)
    assert run.exit_code == 0


@pytest.mark.parametrize("stage", ["train", "val"])
def test_a_stop_leaves_its_epoch_and_its_reason_in_the_summary(stage, new_logger, offline_runs):
    stopping = SaturationStopping(stage=stage, window=1, patience=2, tolerance=1.0)
    train([SaturationMonitor(), stopping], new_logger(), epochs=9)
    (run,) = offline_runs()
    assert stopping.stopped_epoch == 2
    assert run.summary[f"saturation/{stage}/stopped_epoch"] == 2
    assert run.summary[f"saturation/{stage}/stopped_reason"] == stopping.stopping_reason_message
    assert steps(run, f"saturation/{stage}/stopped_epoch") == [3 * BATCHES - 1]  # that of the last average


def test_the_arguments_are_in_the_configuration(new_logger, offline_runs):
    monitor = SaturationMonitor(delta=0.9, exclude=["*.4"], max_samples=500, name="sat")
    train([monitor], new_logger(), epochs=1)
    (run,) = offline_runs()
    assert run.config["sat"] == monitor._arguments()
    assert (run.config["sat"]["delta"], run.config["sat"]["exclude"]) == (0.9, ["*.4"])


def test_a_network_of_61_layers_leaves_a_page_that_can_be_read(new_logger, offline_runs):
    class Deep(Net):
        def __init__(self):
            super().__init__()
            hidden = [nn.Linear(8, 8) for _ in range(60)]
            self.net = nn.Sequential(*hidden, nn.Linear(8, 3))

    train([SaturationMonitor()], new_logger(), module=Deep(), epochs=2)
    (run,) = offline_runs()
    panels = {key for row in run.history for key in row if not key.startswith("_")}
    layers = {key for key in panels if re.fullmatch(r"saturation/(train|val)/(layers/)?net\.\d+", key)}
    assert len(layers) == 2 * 61
    assert len(panels - layers) <= 30
    assert {"saturation/train/picture", "saturation/train/average", "loss"} <= panels


def check_media(run, monitor, *, epochs):
    rows = run.table("saturation/table")
    assert [row["layer"] for row in rows] == 2 * epochs * LAYERS
    assert {(row["stage"], row["epoch"]) for row in rows} == {(s, e) for s in ("train", "val") for e in range(epochs)}
    by_stage = sorted(monitor.reports, key=lambda report: report.stage)
    last = [monitor.report(stage) for stage in ("train", "val")]
    assert rows == [{**row, "last": report in last} for report in by_stage for row in report.to_records()]
    for stage in ("train", "val"):
        reports = [report for report in monitor.reports if report.stage == stage]
        settings = run.chart(f"saturation/{stage}/profile")["panel_config"]
        assert settings["panelDefId"] == "wandb/line/v0"
        profile = [(point["layer"], point["saturation"]) for point in run.table(f"saturation/{stage}/profile_table")]
        assert profile == list(reports[-1].saturation.items())
        assert run.media(f"saturation/{stage}/heatmap").exists()
        assert run.summary[f"saturation/{stage}/diagnosis"] == str(reports[-1].diagnose(history=reports))


def check_picture(run):
    for stage in ("train", "val"):
        picture = np.asarray(Image.open(run.media(f"saturation/{stage}/heatmap")).convert("RGB"))
        assert min(picture.shape[:2]) > 250
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 100


@pytest.mark.parametrize(
    ("error", "raised"), [(RuntimeError("broken"), RuntimeError), (KeyboardInterrupt(), SystemExit)]
)
def test_a_run_cut_short_holds_the_windows_that_closed(error, raised, new_logger, offline_runs):
    monitor = SaturationMonitor()
    with pytest.raises(raised):
        train([Fails(error), monitor], new_logger())
    (run,) = offline_runs()
    check_media(run, monitor, epochs=2)
    # Two batches of the third epoch had stepped: the last step that Lightning could have logged.
    assert {step for key in MEDIA for step in steps(run, key)} == {2 * BATCHES + 1}


def test_a_run_that_fails_before_its_first_window_writes_nothing(new_logger, offline_runs, tmp_path):
    with pytest.raises(RuntimeError, match="broken"):
        train([Fails(RuntimeError("broken"), epoch=0), SaturationMonitor(save_dir=tmp_path / "files")], new_logger())
    (run,) = offline_runs()
    assert not any(key.startswith("saturation") for row in run.history for key in row)
    assert not (tmp_path / "files").exists()


def test_several_runs_in_one_process_do_not_mix(new_logger, offline_runs):
    monitor = SaturationMonitor()  # the same one in two Trainers
    kept = []
    for epochs in (1, 2):
        train([monitor], new_logger(), epochs=epochs)
        kept.append([record for r in monitor.reports if r.stage == "train" for record in r.to_records()])
        wandb.finish()
    runs = offline_runs()
    assert [len(run.table("saturation/table")) for run in runs] == [6, 12]
    tables = [[row for row in run.table("saturation/table") if row["stage"] == "train"] for run in runs]
    assert [[{key: row[key] for key in row if key != "last"} for row in table] for table in tables] == kept


def test_windows_within_an_epoch_lie_on_the_steps_that_closed_them(new_logger, offline_runs):
    train([SaturationMonitor(every_n_train_steps=2, stages="train")], new_logger(), epochs=2)
    (run,) = offline_runs()
    assert steps(run, "saturation/train/average") == [1, 3, 5, 7]
    assert len({row["step"] for row in run.table("saturation/table")}) == 4


def test_windows_on_request_draw_while_training_runs(new_logger, offline_runs):
    train([SaturationMonitor(log_windows=True, stages="train")], new_logger())
    (run,) = offline_runs()
    assert steps(run, "saturation/train/window/table") == [3, 7, 11]
    assert steps(run, "saturation/train/picture") == [3, 7, 11, 11]
    assert steps(run, "saturation/train/heatmap") == [3, 7, 11, 11]
    assert [row["epoch"] for row in run.table("saturation/train/window/table")] == [2, 2, 2]


def test_a_run_closed_under_way_still_trains(new_logger):
    monitor = SaturationMonitor()
    with pytest.warns(UserWarning, match="WandbLogger could not be written to; training goes on") as caught:
        trainer = train([Finishes(), monitor], new_logger(), module=Net(logs=False), enable_progress_bar=False)
    assert trainer.current_epoch == 3
    assert len(monitor.reports) == 6
    # Shown once by Python's own filter, for scalars and the report at the end: the same words from the same line.
    assert len({(w.filename, w.lineno) for w in caught if "could not be written to" in str(w.message)}) == 1


def test_a_network_that_fails_costs_no_training(new_logger, monkeypatch):
    logger = new_logger()

    def unreachable(*args, **kwargs):
        raise ConnectionError("the server cannot be reached")

    monkeypatch.setattr(logger.experiment, "log", unreachable)
    with pytest.warns(UserWarning, match="ConnectionError: the server cannot be reached"):
        trainer = train([SaturationMonitor()], logger, module=Net(logs=False))
    assert trainer.current_epoch == 3


def test_tensorboard_and_csv_hold_the_same_scalars(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monitor, board, plain = SaturationMonitor(), TensorBoardLogger(tmp_path), CSVLogger(tmp_path)
    train([monitor], [board, plain])
    averages = [report.average for report in monitor.reports if report.stage == "val"]
    events = EventAccumulator(board.log_dir).Reload()
    scalars = events.Scalars("saturation/val/average")
    assert [event.step for event in scalars] == [3, 7, 11]
    assert [event.value for event in scalars] == pytest.approx(averages)
    assert "saturation/train/heatmap" in events.Tags()["images"]
    assert f"saturation/val/log10_eigenvalues/{LAYERS[0]}" in events.Tags()["histograms"]
    rows = list(csv.DictReader((Path(plain.log_dir) / "metrics.csv").read_text().splitlines()))
    kept = [float(row["saturation/val/average"]) for row in rows if row["saturation/val/average"]]
    assert kept == pytest.approx(averages)


def test_without_a_logger_files_are_written_on_request(tmp_path):
    monitor = SaturationMonitor(save_dir=tmp_path / "out", name="mine")
    train([monitor], False)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["mine.csv", "mine.json", "mine.png"]
    content = json.loads((tmp_path / "out" / "mine.json").read_text())
    assert [window["stage"] for window in content["windows"]] == ["train", "val"] * 3
    assert monitor.reports[-1].plot().axes
    assert "net.0" in str(monitor.reports[-1])


def test_a_folder_that_cannot_be_made_costs_no_training(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(UserWarning, match=r"The folder '.*file' could not be written to; training goes on"):
        train([SaturationMonitor(save_dir=tmp_path / "file")], False)


def test_the_test_stage_is_written_where_lightning_logs_it(new_logger, offline_runs):
    trainer = train([SaturationMonitor()], new_logger(), module=(module := TestableNet()))
    with quiet_lightning():
        trainer.test(module, trainer.val_dataloaders, verbose=False)
    (run,) = offline_runs()
    assert steps(run, "saturation/test/average") == steps(run, "test_loss")
    assert steps(run, "saturation/test/heatmap") == steps(run, "test_loss")


class TestableNet(Net):
    __test__ = False

    def test_step(self, batch):
        self.log("test_loss", self.net(batch[0]).sum())
