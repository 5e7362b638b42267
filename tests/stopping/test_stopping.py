from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from lightning.pytorch import Callback
from torch.utils.data import ConcatDataset, DataLoader

from lightning_saturation import SaturationMonitor, SaturationStopping
from tests.tiny import Net, batches, data, fit, quiet

pytestmark = quiet


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stage": "test"}, "Expected `stage` to be 'train' or 'val', got 'test'"),
        ({"tolerance": 0.0}, r"Expected `tolerance` in \(0, 1\], got 0.0"),
        ({"tolerance": 1.5}, r"Expected `tolerance` in \(0, 1\], got 1.5"),
        ({"tolerance": math.nan}, r"Expected `tolerance` in \(0, 1\], got nan"),
        ({"window": 2}, "Expected `window` of at least 3, got 2"),
        ({"patience": 0}, "Expected `patience` of at least 1, got 0"),
    ],
)
def test_an_argument_out_of_range_is_refused_at_once(arguments, message):
    with pytest.raises(ValueError, match=message):
        SaturationStopping(**arguments)


@pytest.mark.parametrize(
    ("monitor", "stopping"),
    [
        ([], {}),
        ([SaturationMonitor(name="other")], {}),
        ([SaturationMonitor(stages=("val",))], {"stage": "train"}),
        ([SaturationMonitor(stages=("train",))], {"stage": "val"}),
    ],
)
def test_somebody_must_measure_what_is_watched(monitor, stopping):
    with pytest.raises(ValueError, match=r"Expected a monitor called 'saturation' that watches stage .*Add `Sat"):
        fit(Net(), *monitor, SaturationStopping(**stopping))


def test_layers_to_watch_must_be_tracked():
    stopping = SaturationStopping(layers=["body.first", "head"])
    with pytest.raises(ValueError, match=r"Expected `layers` to name tracked layers, among .*, got 'head'"):
        fit(Net(), SaturationMonitor(), stopping)


class Alternating(Net):
    """The first layer's saturation jumps from epoch to epoch until the one given, the others do not move."""

    def __init__(self, until):
        super().__init__()
        self.until = until

    def training_step(self, batch, batch_idx):
        x, y = batch
        if self.current_epoch < self.until and self.current_epoch % 2:
            x = x * torch.tensor([1.0, 5.0, 20.0, 40.0])
        return self.loss((x, y))


def epochs(model, *, monitor=None, max_epochs=12, callbacks=(), val=None, options=None, **stopping):
    """Return how many epochs ``model`` trained."""
    monitor = monitor or SaturationMonitor()
    done = fit(
        model, monitor, SaturationStopping(**stopping), *callbacks, max_epochs=max_epochs, val=val, **(options or {})
    )
    return done.current_epoch


def test_what_does_not_move_stops_after_window_and_patience():
    assert epochs(Net(), window=3, patience=1) == 3
    assert epochs(Net(), window=5, patience=1) == 5
    assert epochs(Net(), window=3, patience=4) == 6


def test_by_default_nothing_stops_before_fourteen_windows():
    assert epochs(Net(), max_epochs=20) == 14


@pytest.mark.parametrize("stopper_first", [False, True])
@pytest.mark.parametrize("val", [None, batches(16)])
def test_the_order_of_callbacks_does_not_matter(stopper_first, val):
    callbacks = [SaturationMonitor(), SaturationStopping(window=3, patience=2)]
    done = fit(Net(), *callbacks[:: -1 if stopper_first else 1], max_epochs=9, val=val)
    assert (done.current_epoch, done.global_step) == (4, 16)


def test_a_layer_that_moves_keeps_training_going():
    assert epochs(Alternating(until=99), window=3, patience=1) == 12


def test_the_count_starts_again_when_a_layer_moves():
    """Epochs 0 to 5 jump; the first three that do not are 6, 7 and 8."""
    assert epochs(Alternating(until=6), window=3, patience=2, max_epochs=30) == 10


def test_only_watched_layers_decide():
    class Elsewhere(Alternating):
        def forward(self, x):
            return self.body(torch.ones_like(x).cumsum(0) + 0 * self.spare(x)[:, :4])

        def __init__(self, until):
            super().__init__(until)
            self.spare = torch.nn.Linear(4, 6)

    assert epochs(Elsewhere(until=99), window=3, patience=1) == 12
    assert epochs(Elsewhere(until=99), window=3, patience=1, layers="body.*") == 3
    assert epochs(Elsewhere(until=99), window=3, patience=1, layers=["body.s*", "spare"]) == 12


def test_no_fewer_epochs_than_asked_for():
    assert epochs(Net(), window=3, patience=1, min_epochs=7) == 7
    assert epochs(Net(), window=3, patience=1, options={"min_epochs": 6}) == 6  # Lightning's own


def test_the_validation_stage_decides_alone():
    class Restless(Alternating):
        def validation_step(self, batch, batch_idx):
            self.loss(batch)

    assert epochs(Restless(until=99), window=3, patience=1, stage="val", val=batches(16)) == 3


@pytest.mark.parametrize(("stopper_first", "steps"), [(False, 5), (True, 6)])
def test_windows_of_steps_stop_within_an_epoch(stopper_first, steps):
    callbacks = [SaturationMonitor(every_n_train_steps=1), SaturationStopping(window=3, patience=3)]
    alike = DataLoader(ConcatDataset([data(8)] * 4), batch_size=8)
    done = fit(Net(), *callbacks[:: -1 if stopper_first else 1], train=alike, max_epochs=9)
    assert done.global_step == steps


def test_a_partial_window_never_counts():
    """Whoever cuts an epoch short: its window is no evidence."""

    class Cutting(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            trainer.should_stop = trainer.current_epoch == 2 and batch_idx == 1

    monitor, stopping = SaturationMonitor(), SaturationStopping(window=3, patience=1)
    fit(Net(), monitor, stopping, Cutting(), max_epochs=9)
    assert [report.partial for report in monitor.reports] == [False, False, True]
    assert stopping.wait_count == 0
    assert stopping.stopping_reason_message is None


def test_a_partial_window_never_counts_mid_epoch_either():
    """Validation within an epoch logs values so far; they are no window."""
    options = {"val_check_interval": 0.25}
    assert epochs(Net(), window=3, patience=1, val=batches(16), options=options) == 3


def test_a_change_of_learning_rate_starts_the_count_again():
    class Stepping(Net):
        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=1e-30)
            return [optimizer], [torch.optim.lr_scheduler.MultiStepLR(optimizer, [4], 0.5)]

    assert epochs(Net(), window=3, patience=4) == 6
    assert epochs(Stepping(), window=3, patience=4, max_epochs=20) == 10  # 4 + 6


def test_the_reason_is_said_in_one_line(caplog):
    stopping = SaturationStopping(window=3, patience=2)
    with caplog.at_level("INFO"):
        fit(Net(), SaturationMonitor(), stopping, max_epochs=9)
    said = [record.getMessage() for record in caplog.records if "Saturation has settled" in record.getMessage()]
    assert said == [stopping.stopping_reason_message]
    assert "\n" not in said[0]
    assert "after epoch 3: for 2 windows no watched layer" in said[0]
    assert "saturation/train/drift = 0.0000" in said[0]


def test_two_stoppers_for_two_monitors():
    monitors = SaturationMonitor(), SaturationMonitor(name="slow", stages=("val",))
    stoppers = [
        SaturationStopping(window=9, patience=1, tolerance=0.5),
        SaturationStopping(window=3, patience=2, name="slow", stage="val"),
    ]
    done = fit(Net(), *monitors, *stoppers, val=batches(16), max_epochs=12)
    assert done.current_epoch == 4
    assert [stopper.stopped_epoch for stopper in stoppers] == [0, 3]


def test_a_second_fit_starts_the_count_again():
    monitor, stopping = SaturationMonitor(), SaturationStopping(window=3, patience=2)
    done = fit(Net(), monitor, stopping, max_epochs=9)
    assert done.current_epoch == 4
    done.fit(done.lightning_module, batches())  # the history goes on, so each window has settled
    assert done.current_epoch == 6
    assert fit(Net(), monitor, stopping, max_epochs=9).current_epoch == 4


def test_stoppers_copy_and_pickle():
    stopping = SaturationStopping(window=3, patience=2)
    for other in (copy.deepcopy(stopping), pickle.loads(pickle.dumps(stopping))):
        assert fit(Net(), SaturationMonitor(), other, max_epochs=9).current_epoch == 4
