"""Promise 4: the exception that ends a run is the user's own, whatever goes wrong in us because of it."""

from __future__ import annotations

from functools import cache

import pytest
from lightning.pytorch import Callback

from tests.contract.callbacks import CALLBACKS
from tests.contract.faults import Trouble, some
from tests.contract.runs import Heard, Learner, seed
from tests.contract.test_failing_loggers import Broken
from tests.tiny import batches, is_untouched, quiet, trainer

pytestmark = quiet

MODULE_HOOKS = (
    "training_step", "validation_step", "forward", "configure_optimizers", "optimizer_step", "backward",
    "optimizer_zero_grad", "on_fit_start", "on_fit_end", "on_train_start", "on_train_end", "on_train_epoch_start",
    "on_train_epoch_end", "on_train_batch_start", "on_train_batch_end", "on_validation_start", "on_validation_end",
    "on_validation_epoch_start", "on_validation_epoch_end", "on_validation_batch_start", "on_validation_batch_end",
    "on_before_backward", "on_after_backward", "on_before_zero_grad", "on_before_optimizer_step",
    "transfer_batch_to_device", "setup", "teardown",
)  # fmt: skip

CALLBACK_HOOKS = (*tuple(hook for hook in MODULE_HOOKS if hook.startswith("on_")), "setup", "teardown")


class OwnError(Exception):
    pass


def failing(cls, hook, *, at, error):
    """Return an instance of ``cls`` whose ``hook`` raises ``error`` when it is called for the ``at``-th time."""
    calls = []

    def raising(self, *args, **kwargs):
        calls.append(hook)
        if len(calls) >= at:
            raise error
        return getattr(super(type(self), self), hook)(*args, **kwargs)

    return type(cls.__name__, (cls,), {hook: raising})()


def fitted(model, *callbacks, logger=False):
    seed()
    done = trainer(*callbacks, logger=logger, max_epochs=2, num_sanity_val_steps=0)
    done.fit(model, batches(shuffle=True), batches(16))


def shown(model, *callbacks, **options):
    """Return the exception that ends the run, or None."""
    with Heard():
        try:
            fitted(model, *callbacks, **options)
        except Exception as error:
            return error
    return None


@cache
def ends_alone(hook, at):
    """Return whether a run without us ends where the module's ``hook`` fails in its ``at``-th call."""
    error = OwnError(hook)
    ending = shown(failing(Learner, hook, at=at, error=error))
    assert ending in (None, error)
    return ending is error


@pytest.mark.parametrize("name", CALLBACKS)
def test_from_every_hook_of_the_module(name):
    hidden, left = [], []
    for hook in MODULE_HOOKS:
        for at in (1, 2):
            error = OwnError(hook)
            alone = error if ends_alone(hook, at) else None
            model = failing(Learner, hook, at=at, error=error)
            other = shown(model, *CALLBACKS[name]())
            if other is not alone:
                hidden.append(f"{hook}, call {at}: {other!r}")
            if hook != "teardown" and not is_untouched(model):
                left.append(f"{hook}, call {at}")
    assert (hidden, left) == ([], [])


@pytest.mark.parametrize("name", CALLBACKS)
def test_from_every_hook_of_another_callback(name):
    hidden, left = [], []
    for hook in CALLBACK_HOOKS:
        alone = shown(Learner(), failing(Callback, hook, at=1, error=(error := OwnError(hook))))
        for first in (True, False):
            theirs, model = failing(Callback, hook, at=1, error=error), Learner()
            callbacks = [theirs, *CALLBACKS[name]()] if first else [*CALLBACKS[name](), theirs]
            other = shown(model, *callbacks)
            if other is not alone:
                hidden.append(f"{hook}, {'before' if first else 'behind'} ours: {other!r}")
            if hook != "teardown" and not is_untouched(model):
                left.append(hook)
    assert (hidden, left) == ([], [])


@pytest.mark.parametrize("name", CALLBACKS)
def test_whatever_fails_while_we_leave(name, tmp_path):
    """A function that runs in ``on_exception`` fails, one after another."""

    def run(faults):
        callbacks = CALLBACKS[name]()
        for callback in callbacks:
            if hasattr(callback, "save_dir"):
                callback.save_dir = tmp_path
        trouble, error = Trouble(callbacks, faults, hooks=["on_exception"]), OwnError("mine")
        model = failing(Learner, "training_step", at=7, error=error)
        with Heard() as heard:
            try:
                fitted(model, *callbacks, logger=Broken(failing=None))
            except Exception as other:
                return trouble, heard, other is error
        raise AssertionError("Expected the run to end.")

    looking, _, _ = run([])
    faults = some(looking.found, name)
    hidden, unsaid, pending = [], [], faults
    while pending:
        trouble, heard, mine = run(pending)
        if not trouble.fired:
            break
        if not mine:
            hidden.append(trouble.fired[-1][0])
        told = trouble.fired if mine else trouble.fired[:-1]
        unsaid += [key for key, _ in told if not heard.about(f"injected into <{key}>")]
        pending = list(trouble.pending)
    assert not hidden, f"{len(hidden)} of {len(faults)}:\n" + "\n".join(hidden)
    assert not unsaid, "no warning:\n" + "\n".join(unsaid)


@pytest.mark.parametrize("where", ["a file", "below a file", 5, b"\xff", "a\0b"], ids=repr)
@pytest.mark.parametrize("name", ["saturation", "saturation-steps", "stopping", "freezing-waits"])
def test_with_a_folder_that_cannot_be_written(name, where, tmp_path):
    if where in ("a file", "below a file"):
        (tmp_path / "file").write_text("")
        where = tmp_path / "file" if where == "a file" else tmp_path / "file" / "below"
    error, callbacks = OwnError("mine"), CALLBACKS[name]()
    callbacks[0].save_dir = where  # past the constructor, which may refuse it
    assert shown(failing(Learner, "training_step", at=7, error=error), *callbacks) is error
    assert shown(Learner(), *callbacks) is None
