"""Promise 12: ranks with different numbers of batches, or a callback on one of them only, end: nobody waits."""

from __future__ import annotations

import datetime
import os
import time

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import Callback
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import DataLoader, Subset

from tests.contract.callbacks import CALLBACKS
from tests.contract.runs import Heard
from tests.tiny import Net, data, quiet, trainer

pytestmark = [*quiet, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that are forked")]

TIMEOUT = 20.0
"""Seconds after which a collective fails: whoever is saved by that only has hung."""


class ByHand(Net):
    """Optimised by hand from gradients that nobody synchronises, with batches of each rank's own number."""

    def __init__(self, sizes):
        super().__init__(lr=0.1)
        self.automatic_optimization = False
        self.sizes = sizes

    def train_dataloader(self):
        return DataLoader(Subset(data(64), range(self.sizes[self.global_rank])), batch_size=8)

    def training_step(self, batch, batch_idx):
        weights = list(self.body.parameters())
        gradients = torch.autograd.grad(self.loss(batch), weights)
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient
        self.optimizers().step()


class Noting(Callback):
    """Leaves in a file how far its rank came."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_end(self, trainer, pl_module):
        done = f"{trainer.current_epoch} {trainer.fit_loop.total_batch_idx + 1}"
        (self.folder / str(trainer.global_rank)).write_text(done)


class Alone(Callback):
    """Gives the callbacks to the first rank only."""

    def __init__(self, make):
        self.make = make

    def setup(self, trainer, pl_module, stage):
        if trainer.global_rank == 0:
            for callback in self.make():
                callback.setup(trainer, pl_module, stage)
                trainer.callbacks.append(callback)


def ran(folder, *callbacks, sizes, epochs):
    """Return how far each rank came and whether nobody was waiting until the collectives' time-out, or the error."""
    start, error = time.monotonic(), None
    limit = datetime.timedelta(seconds=TIMEOUT)
    strategy = DDPStrategy(start_method="fork", process_group_backend="gloo", timeout=limit)
    with Heard():
        try:
            done = trainer(*callbacks, Noting(folder), strategy=strategy, devices=2, use_distributed_sampler=False,
                           max_epochs=epochs, num_sanity_val_steps=0)  # fmt: skip
            done.fit(ByHand(sizes))
        except Exception as raised:
            error = str(raised).strip().splitlines()[-1]
    assert not dist.is_initialized()
    came = {path.name: path.read_text() for path in folder.iterdir()}
    return came, time.monotonic() - start, error


@pytest.mark.parametrize("epochs", [1, 2])
@pytest.mark.parametrize("sizes", [(40, 16), (16, 40)], ids=["first has more", "second has more"])
@pytest.mark.parametrize("name", ["nobody", *CALLBACKS])
def test_ranks_with_different_numbers_of_batches(name, sizes, epochs, tmp_path):
    callbacks = [] if name == "nobody" else CALLBACKS[name]()
    came, seconds, error = ran(tmp_path, *callbacks, sizes=sizes, epochs=epochs)
    assert (error, came) == (None, {str(rank): f"{epochs} {epochs * n // 8}" for rank, n in enumerate(sizes)})
    assert seconds < TIMEOUT


@pytest.fixture
def _waiting_briefly(monkeypatch):
    """Ranks that wait for each other with a time-out below ``TIMEOUT`` wait for two seconds."""
    barrier = dist.monitored_barrier

    def briefly(*args, timeout=None, **options):
        assert timeout.total_seconds() < TIMEOUT, f"would have been waiting for {timeout}"
        return barrier(*args, timeout=datetime.timedelta(seconds=2), **options)

    monkeypatch.setattr(dist, "monitored_barrier", briefly)


@pytest.mark.usefixtures("_waiting_briefly")
@pytest.mark.parametrize("name", CALLBACKS)
def test_a_callback_on_the_first_rank_only(name, tmp_path):
    """It may end as if it were not there, or say that all ranks need it."""
    came, seconds, error = ran(tmp_path, Alone(CALLBACKS[name]), sizes=(32, 32), epochs=2)
    assert seconds < TIMEOUT, error
    # Which of the two processes is heard first is a matter of chance: the other one sees its peer go.
    assert "would have been" not in (error or "")
    assert "rank" in error or "by peer" in error if error else came == dict.fromkeys("01", "2 8")
