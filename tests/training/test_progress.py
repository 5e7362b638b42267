from __future__ import annotations

import pytest
import torch
from lightning.pytorch import Callback
from torch.utils.data import DataLoader, IterableDataset

from lightning_saturation.covariance.ranks import LOCAL
from lightning_saturation.training.groups import data_parallel_group
from lightning_saturation.training.progress import fraction_done, learning_rates, logged_step
from tests.tiny import Net, batches, data, fit, quiet, trainer

pytestmark = quiet


class Watching(Callback):
    """Notes how much is done, at the moments at which windows close."""

    def __init__(self):
        self.started, self.batches, self.epochs = [], [], []

    def on_train_start(self, trainer, pl_module):
        self.started.append(fraction_done(trainer))

    def on_train_batch_end(self, trainer, *args):
        self.batches.append(fraction_done(trainer))

    def on_train_epoch_end(self, trainer, pl_module):
        self.epochs.append(fraction_done(trainer))


class Stream(IterableDataset):
    def __iter__(self):
        return iter(data())


def watched(**options):
    watching = Watching()
    fit(Net(), watching, **options)
    return watching


@pytest.mark.parametrize("val", [None, batches(16)])
def test_the_share_of_epochs(val):
    watching = watched(max_epochs=2, val=val)
    assert watching.started == [0.0]
    assert watching.batches == [(i + 1) / 8 for i in range(8)]
    assert watching.epochs == [0.5, 1.0]


def test_the_share_of_steps():
    assert watched(max_epochs=-1, max_steps=8).batches == [(i + 1) / 8 for i in range(8)]


def test_whatever_ends_first_counts():
    assert watched(max_epochs=100, max_steps=4).batches == [0.25, 0.5, 0.75, 1.0]
    assert watched(max_epochs=1, max_steps=100).epochs == [1.0]


def test_data_without_a_length_counts_whole_epochs():
    watching = watched(max_epochs=2, train=DataLoader(Stream(), batch_size=8))
    assert watching.batches == [0.0] * 4 + [0.5] * 4


def test_no_end_no_share():
    class Ending(Net):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            self.trainer.should_stop = True

    watching = Watching()
    fit(Ending(), watching, max_epochs=-1)
    assert watching.batches == [None]


def test_a_second_fit_starts_where_the_first_one_ended():
    watching, model = Watching(), Net()
    done = fit(model, watching)
    done.fit_loop.max_epochs = 4
    done.fit(model, batches())
    assert watching.started == [0.0, 0.25]
    assert watching.epochs == [1.0, 0.5, 0.75, 1.0]


def test_learning_rates_of_every_group():
    class Grouped(Net):
        def configure_optimizers(self):
            parts = [{"params": self.body.first.parameters(), "lr": 0.5}, {"params": self.body.head.parameters()}]
            return torch.optim.SGD(parts, lr=0.25)

    assert learning_rates(fit(Grouped())) == (0.5, 0.25)
    assert learning_rates(trainer()) == ()


def test_steps_before_and_after_training():
    assert logged_step(trainer()) == 0
    assert logged_step(fit(Net())) == 3


def test_one_process_reduces_nothing():
    assert data_parallel_group(trainer()) == LOCAL
