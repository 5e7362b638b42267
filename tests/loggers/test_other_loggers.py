from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.logger import DummyLogger

from lightning_saturation.loggers.dispatch import write_figure, write_scalars, write_table, write_text
from lightning_saturation.loggers.tabular import fit, to_csv
from lightning_saturation.saturation.plots.windows import heatmap_figure
from lightning_saturation.saturation.writing import save_reports, write_reports, write_window
from tests.profiles import profile

Image = pytest.importorskip("PIL.Image")

HISTORY = [profile([90, 60 - e, None], epoch=e) for e in range(3)]


class OnlyScalars:
    def __init__(self):
        self.seen = []

    def log_metrics(self, metrics, step=None):
        self.seen.append((metrics, step))


class Broken(OnlyScalars):
    @property
    def experiment(self):
        raise OSError("the disk is full\nand more")


@pytest.mark.pictures
def test_tensorboard_gets_pictures_and_histograms(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(tmp_path)
    write_reports([logger], HISTORY, step=29)
    write_scalars([logger], {"a": 0.5}, step=30)
    write_text([logger], "said", "two\n  lines", step=31)
    write_table([logger], "mine", [{"x": 1, "y": 0.123456}], step=32)
    logger.finalize("success")
    events = EventAccumulator(logger.log_dir).Reload()
    assert set(events.Tags()["images"]) == {f"saturation/train/{kind}" for kind in ("picture", "heatmap", "spectrum")}
    (picture,) = events.Images("saturation/train/heatmap")
    assert picture.step == 29
    assert min(picture.width, picture.height) > 250
    assert events.Tags()["histograms"] == [f"saturation/train/log10_eigenvalues/features.{i}" for i in (0, 1)]
    (histogram,) = events.Histograms("saturation/train/log10_eigenvalues/features.1")
    assert histogram.histogram_value.num == 58
    assert [(s.step, s.value) for s in events.Scalars("a")] == [(30, 0.5)]
    assert "too narrow" in _text(events, "saturation/train/diagnosis/text_summary")
    assert _text(events, "said/text_summary") == "    two\n      lines"
    assert _text(events, "mine/text_summary") == "| x | y |\n| --- | --- |\n| 1 | 0.1235 |"


def _text(events, tag):
    return events.Tensors(tag)[0].tensor_proto.string_val[0].decode()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of its own database layer
@pytest.mark.pictures
def test_mlflow_gets_pictures_tables_and_text(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    from lightning.pytorch.loggers import MLFlowLogger

    monkeypatch.chdir(tmp_path)
    logger = MLFlowLogger(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db", artifact_location=str(tmp_path / "artifacts"))
    write_reports([logger], HISTORY, step=29)
    write_text([logger], "said", "words", step=1)
    root = tmp_path / "artifacts" / logger.run_id / "artifacts"
    names = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    pictures = {f"saturation/train/{kind}-step-29.png" for kind in ("picture", "heatmap", "spectrum")}
    assert names == pictures | {
        "saturation/table-step-29.csv",
        "saturation/train/diagnosis-step-29.txt",
        "said-step-1.txt",
    }
    rows = list(csv.DictReader((root / "saturation/table-step-29.csv").read_text().splitlines()))
    assert len(rows) == 9
    assert rows[2]["saturation"] == ""


def test_csv_logger_and_unknown_loggers_get_scalars_and_nothing_else(tmp_path):
    known, unknown = CSVLogger(tmp_path), OnlyScalars()
    for write in (write_reports, lambda loggers, reports, step: write_window(loggers, reports[0], step=step)):
        write([known, unknown], HISTORY, step=1)
    write_figure([known, unknown], "drawn", lambda: heatmap_figure(HISTORY), step=1)
    assert not unknown.seen
    write_scalars([known, unknown], {"a": 0.5, "b": float("nan")}, step=3)
    write_scalars([known, unknown], {"b": float("nan")}, step=4)
    assert unknown.seen == [({"a": 0.5}, 3)]
    known.save()
    assert (Path(known.log_dir) / "metrics.csv").read_text().split() == ["a,step", "0.5,3"]


def test_the_stand_in_of_trial_runs_is_harmless(monkeypatch):
    figure = "lightning_saturation.saturation.writing.verdict_figure"
    monkeypatch.setattr(figure, lambda _: pytest.fail("drawn in vain"))
    write_reports([DummyLogger()], HISTORY, step=1)
    write_scalars([DummyLogger()], {"a": 1.0}, step=1)


def test_one_logger_that_fails_is_one_warning_and_no_loss_to_the_others():
    works = OnlyScalars()
    broken = Broken()
    with pytest.warns(
        UserWarning, match=r"Broken could not be written to; training goes on\. OSError: the disk is full$"
    ):
        write_scalars([broken, works], {"a": 1.0}, step=1)
    assert works.seen


def test_ctrl_c_while_writing_is_not_swallowed():
    class Interrupted(OnlyScalars):
        def log_metrics(self, metrics, step=None):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_scalars([Interrupted()], {"a": 1.0}, step=1)


def test_nothing_to_report_writes_nothing(tmp_path):
    logger = Broken()
    write_reports([logger], [], step=1)
    write_reports([logger], [profile([])], step=1)
    write_window([logger], profile([]), step=1)
    assert save_reports([profile([])], tmp_path / "never") == []
    assert not (tmp_path / "never").exists()


@pytest.mark.pictures
def test_saved_files_hold_the_history(tmp_path):
    table, document, picture = save_reports(HISTORY, tmp_path / "deep" / "folder")
    rows = list(csv.DictReader(table.read_text().splitlines()))
    records = [{**record, "last": report is HISTORY[-1]} for report in HISTORY for record in report.to_records()]
    assert [list(row) for row in rows] == [list(record) for record in records]
    assert [row["saturation"] for row in rows[:3]] == ["0.9", "0.6", ""]
    content = json.loads(document.read_text())
    windows = content["windows"]
    assert [window["average"] for window in windows] == pytest.approx([report.average for report in HISTORY])
    assert windows[1]["layers"][1]["intrinsic_dimension"] == 59
    assert windows[1]["layers"][2]["saturation"] is None
    assert content["diagnosis"]["train"]["text"] == str(HISTORY[-1].diagnose(history=HISTORY))
    assert content["diagnosis"]["train"]["findings"][0]["kind"] == "too narrow"
    pixels = np.asarray(Image.open(picture).convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100


def test_thinning_of_unrelated_rows_keeps_both_ends():
    records = [{"x": i} for i in range(95)]
    assert fit(records, 95) == records
    kept = fit(records, 10)
    assert len(kept) == 10
    assert (kept[0]["x"], kept[-1]["x"]) == (0, 94)
    assert kept[0]["thinned"] == "10 of 95 rows"
    one_window = [{"epoch": 1, "x": i} for i in range(95)]
    assert {record["thinned"] for record in fit(one_window, 10)} == {"10 of 95 rows"}


def test_csv_quotes_what_needs_it():
    assert to_csv([{"a": 'x,"y"', "b": None}, {"b": float("nan"), "c": 1.5}]) == 'a,b,c\n"x,""y""",,\n,,1.5\n'
