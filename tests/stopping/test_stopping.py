from __future__ import annotations

import copy
import csv
import math
import pickle

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import ConcatDataset, DataLoader

from lightning_saturation import SaturationMonitor, SaturationStopping
from tests.tiny import Net, batches, data, fit, quiet

pytestmark = [*quiet, pytest.mark.filterwarnings("ignore:SaturationStopping cannot stop this training")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stage": "test"}, r"Expected `stage` to be one of \('train', 'val'\), got 'test'"),
        ({"tolerance": 0.0}, r"Expected `tolerance` in \(0, 1\], got 0.0"),
        ({"tolerance": 1.5}, r"Expected `tolerance` in \(0, 1\], got 1.5"),
        ({"tolerance": math.nan}, r"Expected `tolerance` in \(0, 1\], got nan"),
        ({"window": 0}, "Expected `window` of at least 1, got 0"),
        ({"patience": 0}, "Expected `patience` of at least 1, got 0"),
    ],
)
def test_an_argument_out_of_range_is_refused_at_once(arguments, message):
    with pytest.raises(ValueError, match=message):
        SaturationStopping(**arguments)


@pytest.mark.parametrize(
    ("monitor", "stopping", "mend"),
    [
        ([], {}, r"Add `SaturationMonitor\(\)`"),
        ([SaturationMonitor(name="other")], {}, r"Add `SaturationMonitor\(\)`"),
        ([SaturationMonitor(stages=("val",))], {"stage": "train"}, "Add 'train' to its `stages`"),
        ([SaturationMonitor(stages=("train",))], {"stage": "val"}, "Add 'val' to its `stages`"),
    ],
)
def test_somebody_must_measure_what_is_watched(monitor, stopping, mend):
    with pytest.raises(ValueError, match=rf"Expected a monitor called 'saturation' that watches stage .*{mend}"):
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
    assert epochs(Net(), window=3, patience=1) == 4
    assert epochs(Net(), window=5, patience=1) == 6
    assert epochs(Net(), window=3, patience=4) == 7


def test_by_default_nothing_stops_before_eight_windows():
    assert epochs(Net(), max_epochs=20) == 8


def test_no_end_of_training_is_needed():
    assert epochs(Net(), max_epochs=-1) == 8


@pytest.mark.parametrize("stopper_first", [False, True])
@pytest.mark.parametrize("val", [None, batches(16)])
def test_the_order_of_callbacks_does_not_matter(stopper_first, val):
    callbacks = [SaturationMonitor(), SaturationStopping(window=3, patience=2)]
    done = fit(Net(), *callbacks[:: -1 if stopper_first else 1], max_epochs=9, val=val)
    assert (done.current_epoch, done.global_step) == (5, 20)


def test_a_layer_that_moves_keeps_training_going():
    assert epochs(Alternating(until=99), window=3, patience=1) == 12


def test_the_count_starts_again_when_a_layer_moves():
    """Epochs 1, 3 and 5 jump; the first that has not moved since three epochs before, nor any after it, is 9."""
    assert epochs(Alternating(until=6), window=3, patience=2, max_epochs=30) == 11


def test_only_watched_layers_decide():
    class Elsewhere(Alternating):
        def forward(self, x):
            return self.body(torch.ones_like(x).cumsum(0) + 0 * self.spare(x)[:, :4])

        def __init__(self, until):
            super().__init__(until)
            self.spare = torch.nn.Linear(4, 6)

    assert epochs(Elsewhere(until=99), window=3, patience=1) == 12
    assert epochs(Elsewhere(until=99), window=3, patience=1, layers="body.*") == 4
    assert epochs(Elsewhere(until=99), window=3, patience=1, layers=["body.s*", "spare"]) == 12


def test_no_fewer_epochs_than_asked_for():
    assert epochs(Net(), window=3, patience=1, min_epochs=7) == 7
    assert epochs(Net(), window=3, patience=1, options={"min_epochs": 6}) == 6  # Lightning's own


def test_the_validation_stage_decides_alone():
    class Restless(Alternating):
        def validation_step(self, batch, batch_idx):
            self.loss(batch)

    assert epochs(Restless(until=99), window=3, patience=1, stage="val", val=batches(16)) == 4


@pytest.mark.parametrize(("stopper_first", "steps"), [(False, 6), (True, 7)])
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

    monitor, stopping = SaturationMonitor(), SaturationStopping(window=1, patience=2)
    fit(Net(), monitor, stopping, Cutting(), max_epochs=9)
    assert [report.partial for report in monitor.reports] == [False, False, True]
    assert stopping.wait_count == 1
    assert stopping.stopping_reason_message is None


def test_a_partial_window_never_counts_mid_epoch_either():
    """Validation within an epoch logs values so far; they are no window."""
    options = {"val_check_interval": 0.25}
    assert epochs(Net(), window=3, patience=1, val=batches(16), options=options) == 4


def test_the_reason_is_said_in_one_sentence_with_its_numbers(caplog, tmp_path):
    stopping, logger = SaturationStopping(window=3, patience=2), CSVLogger(tmp_path)
    with caplog.at_level("INFO"):
        fit(Net(), SaturationMonitor(), stopping, max_epochs=9, logger=logger)
    said = [record.getMessage() for record in caplog.records if "has settled" in record.getMessage()]
    assert said == [stopping.stopping_reason_message]
    assert said[0] == (
        "The train profile has settled after epoch 4: saturation/train/change, the mean change of the watched layers"
        " over 3 windows, was below 0.01 for 2 windows in a row, and is 0.0000 now. Training stops."
    )
    logger.save()
    rows = list(csv.DictReader((tmp_path / "lightning_logs/version_0/metrics.csv").read_text().splitlines()))
    assert [row["saturation/train/stopped_epoch"] for row in rows if row["saturation/train/stopped_epoch"]] == ["4.0"]


def test_two_stoppers_for_two_monitors():
    monitors = SaturationMonitor(), SaturationMonitor(name="slow", stages=("val",))
    stoppers = [
        SaturationStopping(window=9, patience=1, tolerance=0.5),
        SaturationStopping(window=3, patience=2, name="slow", stage="val"),
    ]
    done = fit(Net(), *monitors, *stoppers, val=batches(16), max_epochs=12)
    assert done.current_epoch == 5
    assert [stopper.stopped_epoch for stopper in stoppers] == [0, 4]


def test_a_second_fit_starts_the_count_again():
    monitor, stopping = SaturationMonitor(), SaturationStopping(window=3, patience=2)
    done = fit(Net(), monitor, stopping, max_epochs=9)
    assert done.current_epoch == 5
    done.fit(done.lightning_module, batches())  # the history goes on, so each window is calm
    assert done.current_epoch == 7
    assert fit(Net(), monitor, stopping, max_epochs=9).current_epoch == 5


def test_stoppers_copy_and_pickle():
    stopping = SaturationStopping(window=3, patience=2)
    for other in (copy.deepcopy(stopping), pickle.loads(pickle.dumps(stopping))):
        assert fit(Net(), SaturationMonitor(), other, max_epochs=9).current_epoch == 5
