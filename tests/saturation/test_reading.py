from __future__ import annotations

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn

from lightning_saturation import SaturationMonitor
from tests.tiny import batches, quiet, trainer

pytestmark = quiet


class Scored(LightningModule):
    """Logs what a user logs, in the places where users do; ``score`` counts epochs so that a shift shows."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))

    def training_step(self, batch):
        loss = self.net(batch[0]).square().mean()
        self.log("train/loss", loss, on_epoch=True, on_step=False)
        return loss

    def validation_step(self, batch):
        self.net(batch[0])
        self.log("val/accuracy", torch.tensor(0.1 * self.current_epoch))

    def on_train_epoch_end(self):
        self.log("late", float(self.current_epoch))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


@pytest.fixture(scope="module")
def monitor():
    monitor = SaturationMonitor()
    trainer(monitor, max_epochs=3).fit(Scored(), batches(), batches())
    return monitor


def test_the_report_is_the_last_of_the_stage_and_of_training_by_default(monitor):
    train = [report for report in monitor.reports if report.stage == "train"]
    val = [report for report in monitor.reports if report.stage == "val"]
    assert monitor.report() is train[-1]
    assert monitor.report("val") is val[-1]
    assert monitor.diagnose() == train[-1].diagnose(history=train)
    assert monitor.diagnose("val") == val[-1].diagnose(history=val)


def test_the_picture_holds_the_stage_and_the_metric_by_epoch(monitor):
    _, over_time = monitor.plot().axes
    average, metric = over_time.get_lines()[:2]
    assert list(average.get_ydata()) == [r.average for r in monitor.reports if r.stage == "train"]
    assert metric.get_label() == "val/accuracy"
    assert list(metric.get_xdata()) == [0, 1, 2]
    assert list(metric.get_ydata()) == pytest.approx([0, 0.1, 0.2])
    (average, *_) = monitor.plot("val").axes[1].get_lines()
    assert list(average.get_ydata()) == [r.average for r in monitor.reports if r.stage == "val"]


def test_a_metric_that_the_module_logs_last_belongs_to_its_epoch(monitor):
    drawn = [line for axes in monitor.plot(metric="late").axes[1:] for line in axes.get_lines()]
    (line,) = [line for line in drawn if "late" in str(line.get_label())]
    assert list(line.get_ydata()) == [0, 1, 2]


def test_a_stage_or_metric_that_is_not_there_is_an_error(monitor):
    with pytest.raises(ValueError, match=r"watched, among \['train', 'val'\], got 'test'"):
        monitor.report("test")
    with pytest.raises(ValueError, match=r"Expected `metric` .*'val/accuracy'.* got 'nothing'"):
        monitor.plot(metric="nothing")
    with pytest.raises(ValueError, match="nothing has been measured yet"):
        SaturationMonitor().report()


def test_metrics_outlive_a_checkpoint(monitor):
    copy = SaturationMonitor()
    copy.load_state_dict(monitor.state_dict())
    assert copy._metrics.curve("train/loss") == monitor._metrics.curve("train/loss")
    older = {key: value for key, value in monitor.state_dict().items() if key != "metrics"}
    copy = SaturationMonitor()
    copy.load_state_dict(older)
    assert len(copy.plot().axes[1].get_lines()) == 1


def test_a_new_fit_starts_metrics_anew():
    monitor = SaturationMonitor()
    for epochs in (3, 2):
        trainer(monitor, max_epochs=epochs).fit(Scored(), batches(), batches())
    assert list(monitor._metrics.curve().epochs) == [0, 1]
