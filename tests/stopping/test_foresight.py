"""What is known of windows to come: drops that schedulers plan, and stops that can never fire."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from torch.optim import lr_scheduler as schedulers

from lightning_saturation import SaturationMonitor, SaturationStopping, SimilarityMonitor
from lightning_saturation.stopping.foresight import planned_rates
from tests.tiny import Net, batches, fit, quiet

pytestmark = quiet
EPOCHS, STEPS = 12, 4  # of training, and in an epoch


class Scheduled(Net):
    """Stands still whatever its schedule says."""

    def __init__(self, make, interval="epoch", frequency=1, *, groups=1):
        super().__init__()
        self.make, self.interval, self.frequency, self.groups = make, interval, frequency, groups
        self.offset = 0

    def configure_optimizers(self):
        layers = [self.body.first, self.body.second][: self.groups]
        groups = [{"params": layer.parameters(), "lr": 1e-30 * (i + 1)} for i, layer in enumerate(layers)]
        optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
        scheduler = {"scheduler": self.make(self, optimizer), "interval": self.interval, "frequency": self.frequency}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def factor(self, count):
        return 1.0 if count + self.offset < 7 else 0.1


class Noisy(Scheduled):
    def factor(self, count):
        return torch.rand(()).item()  # Python's own numbers are drawn by the checks of types as well


def steps(module, optimizer):
    return schedulers.MultiStepLR(optimizer, [3, 8], 0.2)


def chained(module, optimizer):
    first = schedulers.LinearLR(optimizer, 0.1, total_iters=4)
    return schedulers.SequentialLR(optimizer, [first, schedulers.CosineAnnealingLR(optimizer, 8)], [4])


def by_method(module, optimizer):
    return schedulers.LambdaLR(optimizer, module.factor)


def one_cycle(module, optimizer):
    return schedulers.OneCycleLR(optimizer, 1e-30, total_steps=EPOCHS * STEPS)


class Rates(Callback):
    """Keeps the rates with which each window began, and at ``at`` steps those that are planned from there on."""

    def __init__(self, at=0, every=STEPS):
        self.at, self.every, self.real, self.planned = at, every, [], None

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.at:
            self.before = copy.deepcopy(trainer.lr_scheduler_configs[0].scheduler.state_dict())
            self.planned = list(planned_rates(trainer, every=self.every))
            assert trainer.lr_scheduler_configs[0].scheduler.state_dict() == self.before
        if trainer.global_step >= self.at and (trainer.global_step - self.at) % self.every == 0:
            self.real.append(tuple(group["lr"] for group in trainer.optimizers[0].param_groups))


@pytest.mark.parametrize(
    ("make", "interval", "frequency"),
    [(steps, "epoch", 1), (steps, "epoch", 2), (steps, "step", 1), (steps, "step", 2), (chained, "epoch", 1),
     (chained, "step", 1), (by_method, "epoch", 1), (one_cycle, "step", 1)],
)  # fmt: skip
@pytest.mark.parametrize(("at", "every"), [(0, 4), (0, 2), (8, 4), (6, 2), (0, 8)])
def test_the_plan_is_what_then_happens(make, interval, frequency, at, every):
    rates = Rates(at, every)
    fit(Scheduled(make, interval, frequency, groups=2), rates, max_epochs=EPOCHS)
    np.testing.assert_allclose(rates.planned, rates.real, rtol=1e-9)
    assert len(rates.planned) == (EPOCHS * STEPS - at) / every


def test_accumulated_batches_and_a_number_of_steps_are_understood():
    rates = Rates(every=2)
    fit(Scheduled(steps), rates, max_epochs=-1, max_steps=14, accumulate_grad_batches=2)
    # A batch that accumulates begins at the same step as the one before it.
    np.testing.assert_allclose(rates.planned, rates.real[::2], rtol=1e-9)
    assert len(rates.planned) == 7


def stopped_after(model, *, max_epochs=24, **options):
    return fit(model, SaturationMonitor(), SaturationStopping(window=3, patience=2), max_epochs=max_epochs, **options)


@pytest.mark.parametrize(
    ("make", "interval", "epochs"),
    [
        (lambda module, optimizer: schedulers.MultiStepLR(optimizer, [9], 0.5), "epoch", 9 + 5),
        (lambda module, optimizer: schedulers.MultiStepLR(optimizer, [9 * STEPS], 0.5), "step", 9 + 5),
        (lambda module, optimizer: schedulers.MultiStepLR(optimizer, [9], 0.8), "epoch", 5),
        (lambda module, optimizer: schedulers.MultiStepLR(optimizer, [5], 0.5), "epoch", 5 + 5),  # as it would stop
        (lambda module, optimizer: schedulers.MultiStepLR(optimizer, [40], 0.5), "epoch", 5),  # after the end
        (lambda module, optimizer: schedulers.CosineAnnealingLR(optimizer, 24), "epoch", 5),
        (lambda module, optimizer: schedulers.CosineAnnealingLR(optimizer, 24 * STEPS), "step", 5),
        (by_method, "epoch", 7 + 5),
    ],
)
def test_a_planned_drop_is_waited_for(make, interval, epochs):
    assert stopped_after(Scheduled(make, interval)).current_epoch == epochs


def test_validation_waits_too():
    stopping = SaturationStopping(stage="val", window=3, patience=2)
    model = Scheduled(lambda module, optimizer: schedulers.MultiStepLR(optimizer, [9], 0.5))
    assert fit(model, SaturationMonitor(), stopping, val=batches(16), max_epochs=24).current_epoch == 14


def test_a_drop_that_a_metric_brings_is_no_plan():
    class Reducing(Net):
        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=1e-30)
            scheduler = schedulers.ReduceLROnPlateau(optimizer, patience=100)
            return {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": scheduler, "monitor": "saturation/train/average"},
            }

    assert stopped_after(Reducing()).current_epoch == 5


def test_a_training_without_an_end_has_no_plan():
    model = Scheduled(lambda module, optimizer: schedulers.MultiStepLR(optimizer, [9], 0.5))
    assert stopped_after(model, max_epochs=-1).current_epoch == 5


def test_a_plan_that_cannot_be_read_is_said_and_not_waited_for():
    class Strange(schedulers.MultiStepLR):
        def __deepcopy__(self, memo):
            raise RuntimeError("not this one")

    model = Scheduled(lambda module, optimizer: Strange(optimizer, [9], 0.5))
    with pytest.warns(UserWarning, match="could not look ahead.*not this one"):
        assert stopped_after(model).current_epoch == 5


def test_a_look_ahead_draws_no_number():
    torch.manual_seed(3)
    fit(Noisy(by_method), max_epochs=8)
    expected = torch.rand(())
    torch.manual_seed(3)
    done = fit(Noisy(by_method), SaturationMonitor(), SaturationStopping(window=3, patience=2), max_epochs=8)
    assert done.current_epoch == 8  # its plan is to fall, at random
    assert torch.rand(()) == expected


@pytest.mark.parametrize(
    ("monitor", "options", "message"),
    [
        (SaturationMonitor(), {"max_epochs": 7}, "needs window . patience = 8 windows, and there will be 7"),
        (SaturationMonitor(every_n_train_steps=4), {"max_steps": 31, "max_epochs": -1}, "there will be 7"),
        (SimilarityMonitor(every_n_epochs=2, samples=8), {"max_epochs": 14}, "there will be 7"),
    ],
)
def test_a_stop_that_can_never_fire_is_said(monitor, options, message):
    with pytest.warns(UserWarning, match=f"SaturationStopping cannot stop this training: it .*{message}"):
        fit(Net(), monitor, SaturationStopping(name=monitor.name), **options)


def test_a_stop_on_validation_without_any_is_said():
    with pytest.warns(UserWarning, match="cannot stop this training: it watches validation, and there is none"):
        fit(Net(), SaturationMonitor(), SaturationStopping(stage="val"), max_epochs=9)


@pytest.mark.parametrize("epochs", [30, 60])
def test_a_cycle_that_may_be_stopped_early_is_not_spoken_of(epochs):
    model = Scheduled(
        lambda module, optimizer: schedulers.OneCycleLR(optimizer, 1e-30, total_steps=epochs * STEPS), "step"
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="SaturationStopping cannot stop")
        done = fit(model, SaturationMonitor(), SaturationStopping(window=2, patience=2), max_epochs=epochs)
    assert done.current_epoch < epochs


def test_a_schedule_after_which_nothing_can_stop_is_said():
    model = Scheduled(lambda module, optimizer: schedulers.StepLR(optimizer, 4, 0.1))
    with pytest.warns(UserWarning, match="last planned drop of the learning rate.*8 windows, and there will be 4"):
        fit(model, SaturationMonitor(), SaturationStopping(), max_epochs=12)


@pytest.mark.parametrize("options", [{"max_epochs": 8}, {"max_epochs": -1, "max_steps": 32}, {"fast_dev_run": True}])
def test_a_stop_that_can_fire_is_not_spoken_of(options):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", module="lightning")
        fit(Net(), SaturationMonitor(), SaturationStopping(), **options)
