"""The monitor among Lightning's own callbacks, loggers, flags and loops."""

from __future__ import annotations

import lightning.pytorch
import pytest
import pytorch_lightning
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger
from torch.utils.data import DataLoader, IterableDataset

from lightning_saturation import SaturationMonitor, SaturationStopping
from tests.tiny import LAYERS, SAMPLES, Net, batches, data, fit, is_untouched, quiet, seen

pytestmark = quiet


class Stream(IterableDataset):
    """Data without a length."""

    def __iter__(self):
        return iter(data())


def stream():
    return DataLoader(Stream(), batch_size=8)


# Callbacks that monitor our keys


class Reading(Callback):
    """Notes what can be monitored, at the moments at which others decide."""

    def __init__(self, key="saturation/train/average"):
        self.key, self.values = key, []

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.values.append(("val", float(trainer.callback_metrics[self.key])))

    def on_train_epoch_end(self, trainer, pl_module):
        self.values.append(("train", float(trainer.callback_metrics[self.key])))


@pytest.mark.parametrize("first", [True, False])
def test_values_are_there_when_others_decide(first):
    monitor, reading = SaturationMonitor(), Reading()
    callbacks = [reading, monitor] if first else [monitor, reading]
    fit(Net(lr=0.5), *callbacks, val=batches(16), max_epochs=3)
    averages = [report.average for report in monitor.reports if report.stage == "train"]
    assert len(set(averages)) > 1
    expected = [(when, pytest.approx(value)) for value in averages for when in ("val", "train")]
    assert reading.values == expected


def test_values_so_far_are_there_in_the_middle_of_an_epoch():
    """The window goes on: it is neither closed nor reported, and its number is that of half an epoch."""
    monitor, reading, half = SaturationMonitor(), Reading(), SaturationMonitor()
    fit(Net(), monitor, reading, val=batches(16), val_check_interval=0.5)
    fit(Net(), half, limit_train_batches=2)
    assert seen(monitor) == [dict.fromkeys(LAYERS, SAMPLES)]
    assert reading.values[0] == ("val", pytest.approx(half.reports[0].average))
    assert reading.values[1:] == [(when, pytest.approx(monitor.reports[0].average)) for when in ("val", "train")]


WAYS = {
    "train epoch end": {},
    "validation end": {"val": batches(16)},
    "val_check_interval=0.5": {"val": batches(16), "val_check_interval": 0.5},
    "check_val_every_n_epoch=2": {"val": batches(16), "check_val_every_n_epoch": 2},
    "steps": {"val": batches(16), "val_check_interval": 3, "check_val_every_n_epoch": None},
}


@pytest.mark.parametrize(
    ("way", "stage"), [(way, stage) for way in WAYS for stage in ("train", "val")[: len(WAYS[way]) + 1]]
)
@pytest.mark.parametrize("every_n_train_steps", [None, 2])
def test_early_stopping_and_checkpoints_on_our_keys(way, stage, every_n_train_steps, tmp_path):
    key = f"saturation/{stage}/average"
    stopping = EarlyStopping(key, patience=2, min_delta=1.0)  # a saturation never improves by so much
    checkpoint = ModelCheckpoint(tmp_path, monitor=key, save_top_k=-1, filename="{epoch}-{step}")
    monitor = SaturationMonitor(every_n_train_steps=every_n_train_steps)
    done = fit(Net(), stopping, checkpoint, monitor, max_epochs=9, enable_checkpointing=True, **WAYS[way])
    assert stopping.stopped_epoch > 0
    assert done.current_epoch < 9
    averages = [pytest.approx(report.average) for report in monitor.reports if report.stage == stage]
    assert checkpoint.best_k_models
    assert all(float(value) in averages for value in checkpoint.best_k_models.values())


def test_stopping_at_a_threshold():
    stopping = EarlyStopping("saturation/train/average", stopping_threshold=0.0, mode="max", verbose=True)
    done = fit(Net(), stopping, SaturationMonitor(), max_epochs=9)
    assert done.current_epoch == 1


def test_a_scheduler_on_our_key():
    class Plateau(Net):
        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=1e-30)
            scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=1, factor=0.1)
            settings = {"scheduler": scheduler, "monitor": "saturation/train/average"}
            return {"optimizer": optimizer, "lr_scheduler": settings}

    monitor = SaturationMonitor()
    fit(Plateau(), monitor, max_epochs=4)
    assert [report.learning_rates[0] for report in monitor.reports] == pytest.approx([1e-30] * 3 + [1e-31])


# Loggers


class Remembering(Logger):
    """A logger of which Lightning knows nothing but the interface."""

    name, version = "remembering", 0

    def __init__(self):
        super().__init__()
        self.logged = []

    def log_metrics(self, metrics, step=None):
        self.logged.append((step, metrics))

    def log_hyperparams(self, *args, **kwargs):
        pass

    def steps(self, key):
        return [(step, metrics[key]) for step, metrics in self.logged if key in metrics]


class Losing(Net):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.log("step loss", loss)
        self.log("epoch loss", loss, on_step=False, on_epoch=True)
        return loss


@pytest.mark.parametrize("val", [None, batches(16)])
def test_windows_of_epochs_are_logged_beside_lightnings_own(val):
    logger, monitor = Remembering(), SaturationMonitor()
    fit(Losing(), monitor, logger=logger, val=val, max_epochs=3)
    steps = [step for step, _ in logger.steps("epoch loss")]
    assert steps == [3, 7, 11]
    averages = [pytest.approx(report.average) for report in monitor.reports if report.stage == "train"]
    assert logger.steps("saturation/train/average") == list(zip(steps, averages, strict=True))
    if val is not None:
        assert [step for step, _ in logger.steps("saturation/val/layers/body.head")] == steps


def test_windows_of_steps_are_logged_however_seldom_lightning_logs():
    logger, monitor = Remembering(), SaturationMonitor(every_n_train_steps=2)
    fit(Losing(), monitor, logger=logger, max_epochs=2, log_every_n_steps=1000)
    averages = [pytest.approx(report.average) for report in monitor.reports]
    assert logger.steps("saturation/train/average") == list(zip((1, 3, 5, 7), averages, strict=True))


def test_windows_of_steps_lie_beside_the_steps_of_lightning():
    logger, monitor = Remembering(), SaturationMonitor(every_n_train_steps=1)
    fit(Losing(), monitor, logger=logger, accumulate_grad_batches=2, max_epochs=2, log_every_n_steps=1)
    steps = [step for step, _ in logger.steps("step loss")]
    assert [step for step, _ in logger.steps("saturation/train/average")] == steps == [0, 1, 2, 3]


def test_several_loggers_and_none(tmp_path):
    loggers = [Remembering(), CSVLogger(tmp_path), Remembering()]
    fit(Net(), SaturationMonitor(), logger=loggers)
    assert loggers[0].logged == loggers[2].logged != []
    (written,) = tmp_path.rglob("metrics.csv")
    assert "saturation/train/average" in written.read_text()


# Flags and loops


@pytest.mark.parametrize("every_n_train_steps", [None, 1])
def test_fast_dev_run(every_n_train_steps):
    monitor = SaturationMonitor(every_n_train_steps=every_n_train_steps)
    fit(model := Net(), monitor, SaturationStopping(), val=batches(), fast_dev_run=True)
    assert [report.stage for report in monitor.reports] == ["train", "val"]
    assert is_untouched(model)


def test_barebones():
    monitor = SaturationMonitor()
    done = lightning.pytorch.Trainer(barebones=True, accelerator="cpu", devices=1, max_epochs=2, callbacks=[monitor])
    done.fit(Net(), batches(), batches(16))
    assert seen(monitor) == [dict.fromkeys(LAYERS, SAMPLES)] * 2


def test_a_share_of_the_batches_is_a_whole_window():
    monitor = SaturationMonitor()
    fit(Net(), monitor, val=batches(), limit_train_batches=3, limit_val_batches=2, max_epochs=2)
    assert seen(monitor) == [dict.fromkeys(LAYERS, 24)] * 2
    assert seen(monitor, "val") == [dict.fromkeys(LAYERS, 16)] * 2
    assert not any(report.partial for report in monitor.reports)


@pytest.mark.parametrize("options", [{}, {"limit_train_batches": 3}, {"val": batches(16), "val_check_interval": 2}])
def test_data_without_a_length(options):
    monitor = SaturationMonitor()
    fit(Net(), monitor, train=stream(), max_epochs=2, **options)
    samples = 8 * options.get("limit_train_batches", 4)
    assert seen(monitor) == [dict.fromkeys(LAYERS, samples)] * 2
    assert not any(report.partial for report in monitor.reports)


@pytest.mark.parametrize("val", [None, batches(16)])
@pytest.mark.parametrize("train", [batches(), stream()])
def test_training_that_ends_within_an_epoch_leaves_a_partial_window(val, train):
    monitor = SaturationMonitor()
    fit(Net(), monitor, val=val, train=train, max_steps=6, max_epochs=-1)
    assert seen(monitor) == [dict.fromkeys(LAYERS, samples) for samples in (32, 16)]
    assert [report.partial for report in monitor.reports if report.stage == "train"] == [False, True]
    assert len(monitor.settling["train"]) == 1


def test_training_that_somebody_stops_within_an_epoch_leaves_a_partial_window():
    class Impatient(Callback):
        def on_train_batch_end(self, trainer, *args):
            trainer.should_stop = trainer.global_step == 6

    monitor = SaturationMonitor()
    fit(Net(), monitor, Impatient(), val=batches(16), max_epochs=5)
    assert seen(monitor) == [dict.fromkeys(LAYERS, samples) for samples in (32, 16)]
    assert [report.partial for report in monitor.reports if report.stage == "train"] == [False, True]


def test_no_batches_no_report():
    monitor = SaturationMonitor()
    fit(Net(), monitor, limit_train_batches=0)
    assert monitor.reports == []


def test_validation_that_starts_from_nothing():
    monitor = SaturationMonitor(stages=("val",))
    fit(Net(), monitor, val=batches(16), val_check_interval=0.25, limit_train_batches=4)
    assert seen(monitor, "val") == [dict.fromkeys(LAYERS, 16)] * 4


@pytest.mark.parametrize("interval", [3, 6])
def test_validation_across_epochs_leaves_the_epochs_whole(interval):
    monitor = SaturationMonitor()
    fit(Net(), monitor, val=batches(16), val_check_interval=interval, check_val_every_n_epoch=None, max_epochs=3)
    assert seen(monitor) == [dict.fromkeys(LAYERS, SAMPLES)] * 3
    assert len(seen(monitor, "val")) == 12 // interval


def test_a_monitor_that_the_module_brings_along():
    class Equipped(Net):
        def configure_callbacks(self):
            return [monitor, SaturationStopping()]

    monitor = SaturationMonitor()
    fit(Equipped(), max_epochs=2)
    assert len(monitor.reports) == 2


def test_an_empty_batch_is_nothing():
    class Emptying(Net):
        def training_step(self, batch, batch_idx):
            return self.loss(batch) if batch_idx else self(batch[0][:0]).sum()

    monitor = SaturationMonitor()
    fit(Emptying(), monitor)
    assert seen(monitor) == [dict.fromkeys(LAYERS, 24)]


# The other namespace


@pytest.mark.parametrize("stop", [False, True])
def test_the_older_namespace_takes_our_callbacks(stop):
    class Older(pytorch_lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.body = Net().body

        training_step, validation_step, loss, forward = Net.training_step, Net.validation_step, Net.loss, Net.forward

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.0)

    monitor = SaturationMonitor()
    callbacks = [monitor, SaturationStopping(window=3, patience=1)] if stop else [monitor]
    done = pytorch_lightning.Trainer(
        accelerator="cpu", devices=1, max_epochs=9, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=callbacks,
    )  # fmt: skip
    model = Older()
    done.fit(model, batches(), batches(16))
    assert seen(monitor) == [dict.fromkeys(LAYERS, SAMPLES)] * (4 if stop else 9)
    assert "saturation/val/average" in done.callback_metrics
    assert is_untouched(model)
