"""Promise 3: whatever goes wrong inside of us, training goes on as if we were not there, and one warning says why."""

from __future__ import annotations

from functools import cache

import pytest

from tests.contract.callbacks import CALLBACKS, WATCHING
from tests.contract.faults import REPEATED, Trouble, some
from tests.contract.runs import Ending, Heard, Learner, outcome, seed
from tests.contract.test_failing_loggers import Broken
from tests.tiny import batches, quiet, trainer

pytestmark = quiet

LONGEST = 400
"""Epochs that are more than anything here needs."""


def made(name, folder):
    """Return the callbacks, one of them writing files if it can and there is a ``folder``."""
    callbacks = CALLBACKS[name]()
    for callback in callbacks:
        if hasattr(callback, "save_dir"):
            callback.save_dir = folder
    return callbacks


@cache
def found(name, folder):
    """Return the hook of each function that runs in one while the callbacks called ``name`` watch a training."""
    callbacks = made(name, folder)
    looking = Trouble(callbacks)
    fitted(*callbacks, Ending(4))
    return looking.found


def fitted(*callbacks, logged=True):
    seed()
    model = Learner()
    logger = logged and Broken(failing=None)  # it works, and takes all there is
    done = trainer(*callbacks, logger=logger, max_epochs=LONGEST, limit_train_batches=2, limit_val_batches=1)
    done.fit(model, batches(shuffle=True), batches(16))
    return outcome(model, done)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


@cache
def alone(epochs):
    return fitted(Ending(epochs))


def survived(name, folder, faults):
    """Run until each of ``faults`` has failed once; return what ended a run, and what was not as it should be.

    Nothing is drawn or written until only those are left that draw and write.
    """
    ended, wrong, pending, drawn = [], [], list(faults), False
    while pending:
        callbacks = made(name, folder if drawn else None)
        trouble = Trouble(callbacks, pending)
        ending = Ending(trouble=trouble)
        with Heard() as heard:
            try:
                result = fitted(*callbacks, ending, logged=drawn)
            except Exception as error:
                if not trouble.fired:
                    raise
                ended.append(f"{trouble.fired[-1]}: {type(error).__name__}")
                result = None
        for key, hook in trouble.fired[: None if result else -1]:
            count = len(heard.about(f"injected into <{key}>"))
            if count != 1:
                wrong.append(f"{key} in {hook}: {count} warnings")
        if result is not None:
            differing = alone(len(ending.fired)).differs(result, weights=name in WATCHING)
            wrong += [f"{what} after {trouble.fired}" for what in differing]
        left = [key for key in pending if key in trouble.pending]
        if len(left) == len(pending):
            if drawn:
                break
            drawn = True
        pending = left
    return ended, wrong, pending


@pytest.mark.parametrize("name", CALLBACKS)
def test_training_goes_on(name, folder):
    inside = found(name, folder)
    assert len(inside) > 3  # there is something to fail
    faults = some(inside, name)
    ended, wrong, never = survived(name, folder, faults)
    failing = "\n".join(ended)
    assert not ended, f"{len(ended)} of {len(faults)} end the run, {len(never)} never failed:\n{failing}"
    assert not wrong, "\n".join(wrong)
    assert len(never) <= max(1, len(faults) // 10), never  # what runs once in a process


@pytest.mark.parametrize("name", CALLBACKS)
def test_a_test_goes_on(name, folder):
    """``Trainer.test`` as often as something in it has not failed yet."""
    callbacks = made(name, folder)
    looking = Trouble(callbacks)
    ended, wrong, pending, count = [], [], None, 0
    while pending is None or count:
        done, trouble = trainer(*callbacks, logger=Broken(failing=None)), looking
        if pending is not None:
            callbacks = made(name, folder)
            done = trainer(*callbacks, logger=Broken(failing=None))
            trouble = Trouble(callbacks, pending)
        count, before = 0, -1
        with Heard() as heard:
            while before < len(trouble.fired):
                before = len(trouble.fired)
                try:
                    done.test(Learner(), batches(16), verbose=False)
                except Exception as error:
                    ended.append(f"{trouble.fired[-1]}: {type(error).__name__}")
                    break
                unsaid = [key for key, _ in trouble.fired[before:] if not heard.about(f"injected into <{key}>")]
                wrong += [f"{key}: no warning" for key in unsaid]
        count = len(looking.found) if pending is None else len(trouble.fired)
        pending = some(looking.found, name) if pending is None else list(trouble.pending)
    failing = "\n".join(ended)
    assert not ended, f"{len(ended)} of {len(some(looking.found, name))} end the run:\n{failing}"
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", CALLBACKS)
def test_trouble_in_every_window_is_told_once(name, folder):
    """The outermost function of each hook fails whenever it runs: each callback says so once for each hook."""
    first = {hook: key for key, hook in reversed(found(name, folder).items())}
    ended, wrong = [], []
    for hook, key in first.items():
        drawn = hook in REPEATED
        callbacks = made(name, folder if drawn else None)
        trouble = Trouble(callbacks, [key], for_good=True)
        with Heard() as heard:
            try:
                fitted(*callbacks, Ending(4), logged=drawn)
            except Exception as error:
                ended.append(f"{key} in {hook}: {type(error).__name__}")
                continue
        said, hooks = heard.about(f"injected into <{key}>"), {where for _, where in trouble.fired}
        if not 0 < len(said) <= len(hooks) * len(callbacks) or len(set(said)) < len(said):
            wrong.append(f"{key} failed {len(trouble.fired)} times, in {len(hooks)} hooks: {len(said)} warnings")
    assert (ended, wrong) == ([], [])
