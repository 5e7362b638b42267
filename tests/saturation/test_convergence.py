from __future__ import annotations

import pytest

from lightning_saturation import SaturationMonitor, SaturationStopping
from lightning_saturation.saturation.report.series import saturation_series
from lightning_saturation.stopping.plateau import plateau
from tests.tiny import LAYERS, Net, batches, fit, quiet, trainer

pytestmark = quiet


class Moving(Net):
    def __init__(self):
        super().__init__(lr=0.5)


class Logged(SaturationMonitor):
    """Keeps drift and convergence as logged, window by window."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.logged = {"train": [], "val": []}

    def _keep(self, measured):
        super()._keep(measured)
        stage = measured.report.stage
        found = (measured.values.get(f"saturation/{stage}/{key}") for key in ("drift", "converged"))
        self.logged[stage].append(tuple(found))


@pytest.mark.parametrize("stage", ["train", "val"])
@pytest.mark.parametrize("stopper", [None, {"window": 4, "tolerance": 0.3, "patience": 99}])
def test_every_window_logs_the_plateau_of_its_history(stage, stopper):
    """The horizon of window k of n is the n - k windows to come."""
    monitor = Logged()
    stoppers = [] if stopper is None else [SaturationStopping(stage=stage, **stopper)]
    fit(Moving(), monitor, *stoppers, val=batches(16), max_epochs=8)
    rule = {"window": 12, "tolerance": 0.01} if stopper is None else {"window": 4, "tolerance": 0.3}
    reports = [report for report in monitor.reports if report.stage == stage]
    for k in range(1, 9):
        series = saturation_series(reports[:k], LAYERS[:2])  # the output layer is not watched
        expected = plateau(series, horizon=8 - k, **rule)
        drift, converged = monitor.logged[stage][k - 1]
        assert (drift, bool(converged)) == (pytest.approx(expected.drift), expected.converged)
    assert len({drift for drift, _ in monitor.logged[stage]}) > 3


def test_windows_of_steps_count_windows_of_steps():
    monitor = Logged(every_n_train_steps=2)
    fit(Moving(), monitor, max_epochs=4)
    for k in range(1, 9):
        expected = plateau(saturation_series(monitor.reports[:k], LAYERS[:2]), horizon=8 - k)
        assert monitor.logged["train"][k - 1][0] == pytest.approx(expected.drift)


def test_max_steps_is_an_end_too():
    monitor = Logged()
    fit(Moving(), monitor, max_epochs=-1, max_steps=24)
    for k in range(1, 7):
        expected = plateau(saturation_series(monitor.reports[:k], LAYERS[:2]), horizon=6 - k)
        assert monitor.logged["train"][k - 1][0] == pytest.approx(expected.drift)


def test_training_without_an_end_looks_as_far_ahead_as_back():
    class Ending(Moving):
        def on_train_epoch_end(self):
            self.trainer.should_stop = self.current_epoch == 5

    monitor = Logged()
    fit(Ending(), monitor, max_epochs=-1)
    assert len(monitor.reports) == 6
    for k in range(1, 7):
        expected = plateau(saturation_series(monitor.reports[:k], LAYERS[:2]), horizon=None)
        assert monitor.logged["train"][k - 1][0] == pytest.approx(expected.drift)


def test_plateaus_are_those_of_complete_windows():
    monitor = Logged(every_n_train_steps=3)
    fit(Moving(), monitor, max_epochs=2)
    assert [report.partial for report in monitor.reports] == [False, False, True]
    assert list(monitor.plateaus) == ["train", "val"]
    assert len(monitor.plateaus["train"]) == 2
    assert [p.drift for p in monitor.plateaus["train"]] == [drift for drift, _ in monitor.logged["train"][:2]]


def test_validation_alone_has_no_future():
    monitor = SaturationMonitor()
    done = trainer(monitor)
    done.validate(Net(), batches(), verbose=False)
    assert {"saturation/val/average"} <= done.callback_metrics.keys()
    assert not {"saturation/val/drift", "saturation/val/converged"} & done.callback_metrics.keys()


def test_converged_is_said_when_it_is():
    monitor = Logged()
    fit(Net(), monitor, max_epochs=14)
    assert [converged for _, converged in monitor.logged["train"]] == [0.0] * 11 + [1.0] * 3
    assert max(drift for drift, _ in monitor.logged["train"][2:]) < 1e-12
