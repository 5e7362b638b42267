"""A run that goes on from a checkpoint goes on with its history, under the arguments of today."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_saturation import SaturationMonitor, SaturationStopping
from tests.tiny import LAYERS, SAMPLES, Net, batches, fit, quiet, seen, trainer

pytestmark = [
    *quiet,
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended"),
    # What saved the checkpoints is not there in the runs that load them. That of our own must not be said.
    pytest.mark.filterwarnings(
        r'ignore:Be aware that when using .*add the following callbacks. \["ModelCheckpoint[^"]*"\]'
    ),
]

EPOCHS = 6


class Drifting(Net):
    def __init__(self):
        super().__init__(lr=0.2)


class Trail(SaturationMonitor):
    """Keeps what was logged, window by window."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.trail = []

    def _log(self, trainer, pl_module, measured, **options):
        super()._log(trainer, pl_module, measured, **options)
        values = measured.values
        if values:
            self.trail.append((self.reports[-1].step, values))


def saved(tmp_path, *callbacks, model=None, max_epochs=EPOCHS, **options):
    """Train to the end, saving along the way, and return the checkpoints by step."""
    keep = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, **options.pop("save"))
    fit(model or Drifting(), *callbacks, keep, enable_checkpointing=True, max_epochs=max_epochs, **options)
    return {int(path.stem.split("=")[1].split("-")[0]): path for path in tmp_path.glob("*.ckpt")}


def resumed(path, *callbacks, model=None, **options):
    return fit(model or Drifting(), *callbacks, ckpt_path=path, **{"max_epochs": EPOCHS, **options})


def numbers(reports):
    """Return all that reports say."""
    return [(r.stage, r.epoch, r.step, r.partial, r.learning_rates, str(r.to_records())) for r in reports]


SAVES = {
    "train epoch end": {"every_n_epochs": 1, "save_on_train_epoch_end": True},
    "validation end": {"every_n_epochs": 1, "save_on_train_epoch_end": False},
    "last step": {"every_n_train_steps": 4},
}


@pytest.mark.parametrize("save", SAVES)
def test_from_an_epochs_end_everything_goes_on_as_if_nothing_had_happened(save, tmp_path):
    whole = Trail()
    paths = saved(tmp_path, whole, val=batches(16), save=SAVES[save])
    again = Trail()
    resumed(paths[12], again, val=batches(16))
    if save == "last step":  # saved before that epoch was closed; Lightning goes on with the next, not with validation
        expected = [report for report in whole.reports if (report.step, report.stage) != (12, "val")]
        assert numbers(again.reports) == numbers(expected)
    else:
        assert numbers(again.reports) == numbers(whole.reports)
        after = [(step, values) for step, values in whole.trail if step > 12]
        assert [step for step, _ in again.trail] == [step for step, _ in after]
        for (_, ours), (_, theirs) in zip(again.trail, after, strict=True):
            assert ours == pytest.approx(theirs, nan_ok=True)


def test_from_within_an_epoch_its_window_goes_on(tmp_path):
    whole, again = SaturationMonitor(), SaturationMonitor()
    paths = saved(tmp_path, whole, max_epochs=3, save={"every_n_train_steps": 6})
    resumed(paths[6], again, max_epochs=3)
    assert [(report.step, report.partial) for report in again.reports] == [(4, False), (8, False), (12, False)]
    assert seen(again) == [dict.fromkeys(LAYERS, samples) for samples in (32, 32, 32)]
    assert numbers(again.reports)[0] == numbers(whole.reports)[0]


def test_windows_of_steps_go_on(tmp_path):
    whole, again = (SaturationMonitor(every_n_train_steps=3) for _ in range(2))
    paths = saved(tmp_path, whole, max_epochs=3, save={"every_n_train_steps": 6})
    resumed(paths[6], again, max_epochs=3)
    assert [report.step for report in again.reports] == [report.step for report in whole.reports] == [3, 6, 9, 12]
    assert seen(again) == seen(whole)


@pytest.mark.parametrize("every_n_train_steps", [None, 4])
def test_the_count_towards_stopping_goes_on(every_n_train_steps, tmp_path):
    """Nothing moves: the fourth window is the first to have settled, the ninth ends training."""

    def callbacks():
        monitor = SaturationMonitor(every_n_train_steps=every_n_train_steps)
        return monitor, SaturationStopping(window=3, patience=6)

    save = SAVES["train epoch end"]
    paths = saved(tmp_path / "whole", *callbacks(), model=Net(), max_epochs=20, save=save)
    assert max(paths) == 4 * 9
    monitor, stopping = callbacks()
    done = resumed(paths[24], monitor, stopping, model=Net(), max_epochs=20)
    assert done.current_epoch == 9
    assert len(monitor.reports) == 9
    assert stopping.stopped_epoch == 8


def test_new_arguments_of_the_stopper_hold(tmp_path):
    stopping = SaturationStopping(window=3, patience=6, tolerance=1.0)
    paths = saved(tmp_path, SaturationMonitor(), stopping, model=Net(), max_epochs=6, save=SAVES["train epoch end"])
    hurried = SaturationStopping(window=4, patience=5, tolerance=0.9)
    done = resumed(paths[24], SaturationMonitor(), hurried, model=Net(), max_epochs=20)
    assert (hurried.patience, hurried.rule.window, hurried.rule.tolerance) == (5, 4, 0.9)
    assert done.current_epoch == 9  # two settled windows came with the checkpoint


def test_new_arguments_of_the_monitor_hold_without_a_word(tmp_path):
    """Lightning would warn of a callback that the checkpoint has and the Trainer lacks."""
    paths = saved(tmp_path, SaturationMonitor(), max_epochs=1, save=SAVES["train epoch end"])
    again = SaturationMonitor(layers=["body.s*", "body.head"], delta=0.5, output_layers=(), every_n_train_steps=2)
    resumed(paths[4], again, max_epochs=2)
    assert [(report.delta, list(report.layers)) for report in again.reports] == [
        (0.99, list(LAYERS)),
        (0.5, ["body.second", "body.head"]),
        (0.5, ["body.second", "body.head"]),
    ]
    assert [report.output_layers for report in again.reports] == [("body.head",), (), ()]


def test_two_monitors_get_each_its_own_history(tmp_path):
    first, second = SaturationMonitor(), SaturationMonitor(delta=0.5)
    paths = saved(tmp_path, first, second, max_epochs=2, save=SAVES["train epoch end"])
    again = SaturationMonitor(), SaturationMonitor(delta=0.5)
    resumed(paths[8], *again, max_epochs=3)
    assert [[report.delta for report in monitor.reports] for monitor in again] == [[0.99] * 3, [0.5] * 3]


def test_a_checkpoint_of_a_run_without_us_starts_a_history(tmp_path):
    paths = saved(tmp_path, max_epochs=1, save=SAVES["train epoch end"])
    monitor = SaturationMonitor()
    resumed(paths[4], monitor, SaturationStopping(), max_epochs=2)
    assert [report.epoch for report in monitor.reports] == [1]


def test_checkpoints_hold_plain_data(tmp_path):
    monitor = SaturationMonitor()
    paths = saved(tmp_path, monitor, SaturationStopping(), val=batches(16), max_epochs=3, save=SAVES["train epoch end"])
    checkpoint = torch.load(paths[12], weights_only=True)
    states = {key: state for key, state in checkpoint["callbacks"].items() if key.startswith("Saturation")}
    assert set(states) == {
        "SaturationMonitor{'name': 'saturation'}",
        "SaturationStopping{'stage': 'train', 'name': 'saturation'}",
    }
    again = SaturationMonitor()
    again.load_state_dict(states["SaturationMonitor{'name': 'saturation'}"])
    reports = again.reports
    assert numbers(reports) == numbers(monitor.reports)
    kept = [all(layer.eigenvalues is not None for layer in report.layers.values()) for report in reports]
    assert kept == [False, False, False, False, True, True]  # of each stage's last report only


def test_loading_with_weights_only_resumes(tmp_path):
    path = saved(tmp_path, SaturationMonitor(), max_epochs=1, save=SAVES["train epoch end"])[4]
    monitor = SaturationMonitor()
    done = trainer(monitor, max_epochs=2)
    done.fit(Drifting(), batches(), ckpt_path=path, weights_only=True)
    assert [report.epoch for report in monitor.reports] == [0, 1]


def test_missing_numbers_survive_a_checkpoint():
    class Silent(Net):
        def training_step(self, batch, batch_idx):
            self(torch.full((8, 4), math.nan))
            return torch.zeros((), requires_grad=True)

    monitor = SaturationMonitor()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit(Silent(), monitor)
    (report,) = monitor.reports
    assert {layer.skipped for layer in report.layers.values()} == {SAMPLES}
    assert all(math.isnan(value) for value in report.saturation.values())
    other = SaturationMonitor()
    other.load_state_dict(monitor.state_dict())
    assert numbers(other.reports) == numbers(monitor.reports)


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_evaluating_a_checkpoint_keeps_the_history_of_this_run(stage, tmp_path):
    """Lightning hands callbacks the state in the checkpoint here as well, which may be that of an early epoch."""
    monitor = SaturationMonitor()
    keep = ModelCheckpoint(tmp_path, monitor="saturation/train/average", mode="min")
    done = fit(Drifting(), monitor, keep, enable_checkpointing=True, max_epochs=3)
    getattr(done, stage)(done.lightning_module, batches(16), ckpt_path=keep.best_model_path, verbose=False)
    assert [report.epoch for report in monitor.reports[:-1]] == [0, 1, 2]
    assert monitor.reports[-1].stage == {"validate": "val", "test": "test"}[stage]
