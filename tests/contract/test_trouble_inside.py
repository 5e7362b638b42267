"""Promise 3: whatever goes wrong inside of us, training goes on as if we were not there, and one warning says why."""

from __future__ import annotations

from functools import cache

import pytest

from tests.contract.callbacks import CALLBACKS, WATCHING
from tests.contract.faults import Trouble
from tests.contract.runs import Ending, Heard, Learner, outcome, seed
from tests.contract.test_failing_loggers import Broken
from tests.tiny import batches, quiet, trainer

pytestmark = quiet

LONGEST = 400
"""Epochs that are more than anything here needs."""


def made(name, folder):
    """Return the callbacks, one of them writing files if it can."""
    callbacks = CALLBACKS[name]()
    for callback in callbacks:
        if hasattr(callback, "save_dir"):
            callback.save_dir = folder
    return callbacks


def fitted(*callbacks):
    seed()
    model = Learner()
    logger = Broken(failing=None)  # it works, and takes all there is
    done = trainer(*callbacks, logger=logger, max_epochs=LONGEST, limit_train_batches=2, limit_val_batches=1)
    done.fit(model, batches(shuffle=True), batches(16))
    return outcome(model, done)


@cache
def alone(epochs):
    return fitted(Ending(epochs))


def survived(name, folder, faults):
    """Run until each of ``faults`` has failed once; return what ended a run, and what was not as it should be."""
    ended, wrong, pending = [], [], list(faults)
    while pending:
        callbacks = made(name, folder)
        trouble = Trouble(callbacks, pending)
        ending = Ending(trouble=trouble)
        with Heard() as heard:
            try:
                result = fitted(*callbacks, ending)
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
            break
        pending = left
    return ended, wrong, pending


@pytest.mark.parametrize("name", CALLBACKS)
def test_training_goes_on(name, tmp_path):
    callbacks = made(name, tmp_path)
    looking = Trouble(callbacks)
    fitted(*callbacks, Ending(4))
    assert len(looking.found) > 3  # there is something to fail
    ended, wrong, never = survived(name, tmp_path, looking.found)
    failing = "\n".join(ended)
    assert not ended, f"{len(ended)} of {len(looking.found)} end the run, {len(never)} never failed:\n{failing}"
    assert not wrong, "\n".join(wrong)
    assert len(never) <= len(looking.found) // 10, never  # what runs once in a process


@pytest.mark.parametrize("name", CALLBACKS)
def test_a_test_goes_on(name, tmp_path):
    """``Trainer.test`` as often as something in it has not failed yet."""
    callbacks = made(name, tmp_path)
    looking = Trouble(callbacks)
    ended, wrong, pending, found = [], [], None, 0
    while pending is None or found:
        done, trouble = trainer(*callbacks, logger=Broken(failing=None)), looking
        if pending is not None:
            callbacks = made(name, tmp_path)
            done = trainer(*callbacks, logger=Broken(failing=None))
            trouble = Trouble(callbacks, pending)
        found, before = 0, -1
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
        found = len(looking.found) if pending is None else len(trouble.fired)
        pending = list(looking.found) if pending is None else list(trouble.pending)
    failing = "\n".join(ended)
    assert not ended, f"{len(ended)} of {len(looking.found)} end the run:\n{failing}"
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", CALLBACKS)
def test_trouble_in_every_window_is_told_once(name, tmp_path):
    """The outermost function of each hook fails whenever it runs: each callback says so once for each hook."""
    callbacks = made(name, tmp_path)
    looking = Trouble(callbacks)
    fitted(*callbacks, Ending(4))
    first = {hook: key for key, hook in reversed(looking.found.items())}
    ended, wrong = [], []
    for hook, key in first.items():
        callbacks = made(name, tmp_path)
        trouble = Trouble(callbacks, [key], for_good=True)
        with Heard() as heard:
            try:
                fitted(*callbacks, Ending(4))
            except Exception as error:
                ended.append(f"{key} in {hook}: {type(error).__name__}")
                continue
        said, hooks = heard.about(f"injected into <{key}>"), {where for _, where in trouble.fired}
        if not 0 < len(said) <= len(hooks) * len(callbacks) or len(set(said)) < len(said):
            wrong.append(f"{key} failed {len(trouble.fired)} times, in {len(hooks)} hooks: {len(said)} warnings")
    assert (ended, wrong) == ([], [])
