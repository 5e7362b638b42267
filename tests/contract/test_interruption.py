"""Promise 5: Ctrl-C at any moment ends a run as Lightning ends it, with nothing on the model and all reports so far."""

from __future__ import annotations

import random
import signal
import sys

import pytest
from lightning.pytorch import Callback

from tests.contract.callbacks import CALLBACKS, history, same_history
from tests.contract.runs import Heard, Learner, seed
from tests.tiny import batches, interruptible, is_untouched, quiet, trainer

pytestmark = quiet

MOMENTS = 20
WHERE = ("lightning_saturation", "lightning", "tests")
"""Packages whose function calls are counted as moments."""


class Moments(Callback):
    """Counts function calls from the start of training to its end, and sends SIGINT at the ``at``-th.

    Placed last: what the others remember when an epoch has ended for them is what must be left.
    """

    def __init__(self, callbacks, at=-1):
        self.callbacks, self.at, self.calls, self.left = callbacks, at, 0, []

    def on_train_start(self, trainer, pl_module):
        sys.settrace(self.count)

    def on_train_epoch_end(self, trainer, pl_module):
        self.left = history(self.callbacks)

    def on_train_end(self, trainer, pl_module):
        sys.settrace(None)

    def count(self, frame, event, arg):
        """Count a call; no local tracing, so that nothing but calls comes here."""
        if frame.f_globals.get("__name__", "").partition(".")[0] not in WHERE:
            return
        if frame.f_code.co_name == "<genexpr>":  # `any` leaves it early, and Python ignores what is raised as it ends
            return
        self.calls += 1
        if self.calls == self.at:
            sys.settrace(None)
            signal.raise_signal(signal.SIGINT)


def interrupted(name, at=-1):
    """Return the model, the callbacks, what counted, and how the run ended."""
    seed()
    callbacks, model, ending = CALLBACKS[name](), Learner(), None
    moments = Moments(callbacks, at)
    with interruptible(), Heard():
        try:
            done = trainer(*callbacks, moments, max_epochs=2, num_sanity_val_steps=0)
            done.fit(model, batches(shuffle=True), batches(16))
        except BaseException as error:
            ending = repr(error)
        finally:
            sys.settrace(None)
    return model, callbacks, moments, ending


@pytest.mark.parametrize("name", CALLBACKS)
def test_ctrl_c_at_twenty_moments(name):
    _, callbacks, moments, ending = interrupted(name)
    assert ending is None
    whole, wrong, missed = history(callbacks), [], []
    for at in sorted(random.Random(name).sample(range(1, moments.calls), MOMENTS)):
        model, callbacks, stopped, ending = interrupted(name, at)
        left = history(callbacks)
        if stopped.calls < at:  # calls that only a first run makes, whose caches are empty
            missed.append(at)
            continue
        if ending != "SystemExit(1)":
            wrong.append(f"call {at}: ended with {ending}")
        if not is_untouched(model):
            wrong.append(f"call {at}: hooks are left")
        if not same_history(left[: len(stopped.left)], stopped.left):
            wrong.append(f"call {at}: reports are gone")
        if not {e.label for e in left if not e.partial} <= {e.label for e in whole}:
            wrong.append(f"call {at}: {[e.label for e in left]}")
    assert not wrong, "\n".join(wrong)
    assert len(missed) <= MOMENTS // 10
