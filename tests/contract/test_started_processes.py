"""Promise 13: where a strategy starts processes of its own, the history comes back, or it is said where it is."""

from __future__ import annotations

import os

import pytest
import torch.distributed as dist

from tests.contract.callbacks import CALLBACKS, history
from tests.contract.runs import Heard, Learner
from tests.tiny import batches, is_untouched, quiet, trainer

pytestmark = [*quiet, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that are forked")]


class Leaving(Learner):
    """Ends the process group before its process ends: gloo's threads may abort a process that takes them along."""

    def teardown(self, stage):
        if dist.is_initialized():
            dist.barrier()  # no rank leaves while another still talks to it
            dist.destroy_process_group()


def is_told(callbacks):
    """Return whether the history is that of two epochs, or asking for it says why not."""
    try:
        found = history(callbacks)
    except (AttributeError, RuntimeError) as error:
        return "process" in str(error)
    # Freezes know their step only, and six, or twelve in one process, are taken in an epoch.
    return any(entry.epoch >= 1 or entry.step > 6 for entry in found)


@pytest.mark.parametrize("name", CALLBACKS)
def test_forked_processes(name):
    callbacks = CALLBACKS[name]()
    with Heard():
        trainer(*callbacks, strategy="ddp_fork", devices=2, max_epochs=2).fit(Leaving(), batches(48, size=4))
    assert is_told(callbacks)


def test_spawned_processes():
    """All at once, and one process: starting it takes seconds. Metrics come back, and the model carries nothing."""
    made = {name: CALLBACKS[name]() for name in ("stopping", "dimension", "similarity", "spectrum")}
    callbacks = [callback for each in made.values() for callback in each]
    with Heard():
        done, model = trainer(*callbacks, strategy="ddp_spawn", devices=1, max_epochs=2), Leaving()
        done.fit(model, batches(48, size=4))
    assert 0 < done.callback_metrics["saturation/train/average"] <= 1
    assert is_untouched(model)
    assert [name for name, each in made.items() if not is_told(each)] == []
