from __future__ import annotations

import math

import pytest

from lightning_saturation import SaturationMonitor, SaturationStopping, replay
from lightning_saturation.saturation.report.windows import saturation_series
from lightning_saturation.stopping.settled import profile_changes
from tests.profiles import profile
from tests.tiny import LAYERS, Net, batches, fit, quiet, trainer

pytestmark = [*quiet, pytest.mark.filterwarnings("ignore:SaturationStopping cannot stop this training")]


class Moving(Net):
    def __init__(self):
        super().__init__(lr=0.5)


class Logged(SaturationMonitor):
    """Keeps change and convergence as logged, window by window."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.logged = {"train": [], "val": []}

    def _keep(self, measured):
        super()._keep(measured)
        stage = measured.report.stage
        found = (measured.values.get(f"saturation/{stage}/{key}") for key in ("change", "converged"))
        self.logged[stage].append(tuple(found))


@pytest.mark.parametrize("stage", ["train", "val"])
@pytest.mark.parametrize("stopper", [None, {"window": 2, "tolerance": 0.3, "patience": 99}])
def test_every_window_logs_the_change_of_its_history(stage, stopper):
    monitor = Logged()
    stoppers = [] if stopper is None else [SaturationStopping(stage=stage, **stopper)]
    fit(Moving(), monitor, *stoppers, val=batches(16), max_epochs=9)
    window = 5 if stopper is None else 2
    reports = [report for report in monitor.reports if report.stage == stage]
    expected = profile_changes(saturation_series(reports, LAYERS[:2]), window=window)  # not of the output layer
    assert [change for change, _ in monitor.logged[stage]] == pytest.approx(expected, nan_ok=True)
    assert sum(map(math.isnan, expected)) == window
    assert len(set(expected[window:])) == 9 - window


def test_windows_of_steps_count_windows_of_steps():
    monitor = Logged(every_n_train_steps=2)
    fit(Moving(), monitor, max_epochs=4)
    expected = profile_changes(saturation_series(monitor.reports, LAYERS[:2]), window=5)
    assert [change for change, _ in monitor.logged["train"]] == pytest.approx(expected, nan_ok=True)


def test_partial_windows_are_not_judged():
    monitor = Logged(every_n_train_steps=3)
    fit(Moving(), monitor, max_epochs=2)
    assert [report.partial for report in monitor.reports] == [False, False, True]
    assert list(monitor.settling) == ["train", "val"]
    assert len(monitor.settling["train"]) == 2
    assert monitor.logged["train"][2] == (None, None)


def test_validation_alone_has_no_future():
    monitor = SaturationMonitor()
    done = trainer(monitor)
    done.validate(Net(), batches(), verbose=False)
    assert {"saturation/val/average"} <= done.callback_metrics.keys()
    assert not {"saturation/val/change", "saturation/val/converged"} & done.callback_metrics.keys()


def test_converged_is_said_when_it_is():
    monitor = Logged()
    fit(Net(), monitor, max_epochs=10)
    assert [converged for _, converged in monitor.logged["train"]] == [0.0] * 7 + [1.0] * 3
    assert max(change for change, _ in monitor.logged["train"][5:]) < 1e-12


@pytest.mark.parametrize("options", [{}, {"window": 2, "patience": 4}, {"layers": ["body.second"]}])
def test_a_replay_stops_where_the_stopper_does(options):
    stopped, monitor = SaturationMonitor(), SaturationMonitor()
    done = fit(Net(), stopped, SaturationStopping(**options), max_epochs=12)
    fit(Net(), monitor, max_epochs=12)
    assert replay(monitor.reports, **options).epoch + 1 == done.current_epoch < 12
    assert replay(monitor.reports[: done.current_epoch - 1], **options) is None


def test_a_replay_knows_of_drops_that_were_to_come():
    reports = [profile([30, 40], epoch=epoch) for epoch in range(20)]
    assert replay(reports).epoch == 7
    assert replay(reports, stage="val") is None
    for report in reports:
        object.__setattr__(report, "learning_rates", (0.1 if report.epoch < 12 else 0.01,))
    assert replay(reports).epoch == 19
    with pytest.raises(ValueError, match=r"Expected `layers` to name some of .*, got \['head'\]"):
        replay(reports, layers=["head"])
    with pytest.raises(TypeError, match=r"such as those of `monitor.reports`, got SaturationMonitor"):
        replay(SaturationMonitor())
