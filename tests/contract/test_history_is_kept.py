"""Promise 11, first half: whatever else happens to a callback or its Trainer, what it remembers stays."""

from __future__ import annotations

import copy
import pickle

import pytest
from lightning.pytorch import Callback

from tests.contract.callbacks import CALLBACKS, WATCHING, history, same_history
from tests.contract.runs import Heard, Learner, seed
from tests.tiny import batches, is_untouched, quiet, trainer

pytestmark = quiet


def fitted(*callbacks, epochs=2, **options):
    seed()
    done = trainer(*callbacks, max_epochs=epochs, **options)
    done.fit(Learner(), batches(), batches(16))
    return done


@pytest.mark.parametrize("name", CALLBACKS)
def test_a_copy_knows_the_same_and_lives_on_its_own(name):
    callbacks = CALLBACKS[name]()
    fitted(*callbacks)
    before = history(callbacks)
    for how in (copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c)), copy.copy):
        twins = [how(callback) for callback in callbacks]
        assert same_history(history(twins), before)
        fitted(*twins, epochs=3)
        assert len(history(twins)) >= len(before)
        assert how is copy.copy or same_history(history(callbacks), before)


class Copying(Callback):
    """Makes copies in the middle of training, as averaging callbacks and tuners do."""

    def __init__(self, callbacks):
        self.callbacks, self.copies = callbacks, []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == 6:
            self.copies = copy.deepcopy(self.callbacks)


@pytest.mark.parametrize("name", CALLBACKS)
def test_a_copy_made_while_training_disturbs_nothing(name):
    alone, callbacks = CALLBACKS[name](), CALLBACKS[name]()
    fitted(*alone)
    copying = Copying(callbacks)
    done = fitted(*callbacks, copying)
    assert same_history(history(callbacks), history(alone))
    assert len(history(copying.copies)) <= len(history(callbacks))
    assert is_untouched(done.lightning_module)


@pytest.mark.parametrize("name", CALLBACKS)
def test_a_second_fit_goes_on(name):
    """As Lightning goes on itself: its own epochs and steps continue."""
    callbacks = CALLBACKS[name]()
    seed()
    model, done = Learner(), trainer(*callbacks, max_epochs=2)
    done.fit(model, batches(), batches(16))
    before = history(callbacks)
    done.fit_loop.max_epochs = 4
    done.fit(model, batches(), batches(16))
    after = history(callbacks)
    assert same_history(after[: len(before)], before) or {e.label for e in before} <= {e.label for e in after}
    assert name == "freezing" or len(after) > len(before)
    assert len({entry.label for entry in after}) == len(after)
    assert is_untouched(model)


@pytest.mark.parametrize("how", ["validate", "test"])
@pytest.mark.parametrize("name", CALLBACKS)
def test_evaluating_a_checkpoint_forgets_nothing(name, how, tmp_path):
    """Lightning hands callbacks the state in the checkpoint, which may be that of an early epoch."""
    first, callbacks = CALLBACKS[name](), CALLBACKS[name]()
    fitted(*first, epochs=1).save_checkpoint(tmp_path / "early.ckpt")
    done = fitted(*callbacks, epochs=3)
    before = history(callbacks)
    with Heard():
        getattr(done, how)(done.lightning_module, batches(16), ckpt_path=tmp_path / "early.ckpt", verbose=False)
    after = history(callbacks)
    assert same_history(after[: len(before)], before)
    assert all(entry.stage == {"validate": "val", "test": "test"}[how] for entry in after[len(before) :])


@pytest.mark.parametrize("name", WATCHING)
def test_windows_carry_the_epoch_that_they_were_in(name):
    """The last one too, which closes when training has ended."""
    callbacks = CALLBACKS[name]()
    fitted(*callbacks, epochs=2, limit_train_batches=4)
    entries = [entry for entry in history(callbacks) if entry.what != "SpectrumMonitor"]  # counts finished epochs
    assert all(0 <= entry.epoch < 2 for entry in entries), [entry.label for entry in entries]
