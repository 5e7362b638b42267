"""Promise 10: any state loads, those of older versions with all that they hold, and nothing in one ends a run."""

from __future__ import annotations

import copy
import json
import math
from functools import cache
from pathlib import Path

import pytest
import torch

from tests.contract.callbacks import CALLBACKS, dimension, history, same_numbers, similarity, spectrum
from tests.contract.runs import Heard, Learner, seed
from tests.tiny import batches, quiet, trainer

pytestmark = quiet

OLD = Path(__file__).parent / "checkpoints"
"""Written by the first release, two epochs of :class:`Learner`; ``history.json`` holds what each must tell."""

KINDS = {**CALLBACKS, "dimension": dimension, "similarity": similarity, "spectrum": spectrum}


def fitted(*callbacks, epochs=2, ckpt_path=None):
    seed()
    done = trainer(*callbacks, max_epochs=epochs)
    with Heard():
        done.fit(Learner(), batches(), batches(16), ckpt_path=ckpt_path)
    return done


def told(callbacks):
    """Return the history as plain data."""
    return [[*entry.label, entry.partial, entry.numbers] for entry in history(callbacks)]


@cache
def states(name):
    """Return the state of each callback after two epochs, and what they remember."""
    callbacks = CALLBACKS[name]()
    fitted(*callbacks)
    return [copy.deepcopy(callback.state_dict()) for callback in callbacks], history(callbacks)


def loaded(name, changed):
    """Return what new callbacks make of ``changed`` states, and that they can train on, warnings aside."""
    callbacks = CALLBACKS[name]()
    with Heard():
        for callback, state in zip(callbacks, changed, strict=True):
            callback.load_state_dict(copy.deepcopy(state))
    return callbacks


def labels(entries):
    return [entry.label for entry in entries]


def paths(state, at=()):
    """Return the way to every named field: names of layers are data, and shares of training are no text."""
    if isinstance(state, dict):
        for key, value in state.items():
            if isinstance(key, str) and at[-1:] not in (("layers",), ("baseline",)):
                yield (*at, key)
            yield from paths(value, (*at, key))
    elif isinstance(state, list | tuple):
        for index, value in enumerate(state):
            yield from paths(value, (*at, index))


def without(state, path):
    changed = inner = copy.deepcopy(state)
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return changed


def with_unknown(state):
    """Return ``state`` with a field of a later version wherever there are fields."""
    if isinstance(state, dict):
        changed = {key: with_unknown(value) for key, value in state.items()}
        named = all(isinstance(key, str) and "." not in key for key in state)
        return {**changed, "of_a_later_version": {"and": 1}} if named else changed
    return type(state)(map(with_unknown, state)) if type(state) in (list, tuple) else state


@pytest.mark.parametrize("name", CALLBACKS)
def test_unknown_fields_are_left_out(name):
    known, expected = states(name)
    callbacks = loaded(name, [with_unknown(state) for state in known])
    assert labels(history(callbacks)) == labels(expected)
    for ours, theirs in zip(history(callbacks), expected, strict=True):
        assert same_numbers(ours.numbers, theirs.numbers)


@pytest.mark.parametrize("name", CALLBACKS)
def test_missing_fields_are_missing_numbers(name):
    known, expected = states(name)
    raised, lost = [], []
    for index, state in enumerate(known):
        for path in sorted(set(paths(state)), key=str):
            changed = [*known[:index], without(state, path), *known[index + 1 :]]
            try:
                found = history(loaded(name, changed))
            except Exception as error:
                raised.append(f"{path}: {type(error).__name__}: {error}")
                continue
            if "layers" in path[:-1]:  # a statistic of one layer: all other windows and layers are there
                if labels(found) != labels(expected):
                    lost.append(f"{path}: {labels(found)}")
                for new, old in zip(found, expected, strict=False):
                    known_of = {key: value for key, value in new.numbers.items() if not math.isnan(value)}
                    if not known_of.items() <= old.numbers.items():
                        lost.append(f"{path}: made up {dict(known_of.items() - old.numbers.items())}")
    kinds = sorted({text.partition(": ")[2] for text in raised})
    assert not raised, f"{len(raised)} fields: {kinds}"
    assert not lost, "\n".join(lost)


ODD = {
    "empty": lambda state: {},
    "nothing inside": lambda state: dict.fromkeys(state),
    "later version": lambda state: {**state, "version": 10**6},
    "odd version": lambda state: {**state, "version": "next"},
    "numbers for lists": lambda state: dict.fromkeys(state, 3),
    "lists of nothing": lambda state: {key: [None] for key in state},
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("name", CALLBACKS)
def test_odd_states_load_and_training_goes_on(name, odd, tmp_path):
    callbacks = CALLBACKS[name]()
    fitted(*callbacks).save_checkpoint(tmp_path / "odd.ckpt")
    checkpoint = torch.load(tmp_path / "odd.ckpt", weights_only=True)
    ours = tuple(type(callback).__name__ for callback in callbacks)
    for key, state in checkpoint["callbacks"].items():
        if key.startswith(ours):
            checkpoint["callbacks"][key] = ODD[odd](state)
    torch.save(checkpoint, tmp_path / "odd.ckpt")
    again = CALLBACKS[name]()
    done = fitted(*again, epochs=3, ckpt_path=tmp_path / "odd.ckpt")
    assert done.global_step == 12
    found = history(again)
    if odd in ("later version", "odd version"):
        assert labels(found)[: len(history(callbacks))] == labels(history(callbacks))
    assert name == "freezing" or any(entry.step == 12 or entry.epoch == 2 for entry in found)


def test_a_state_is_plain_data_with_a_version():
    for name in CALLBACKS:
        for state in states(name)[0]:
            assert isinstance(state["version"], int), name


@pytest.mark.parametrize("name", CALLBACKS)
def test_checkpoints_of_the_first_release_load(name):
    expected = json.loads((OLD / "history.json").read_text())[name]
    checkpoint = torch.load(OLD / f"{name}.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 8
    callbacks = CALLBACKS[name]()
    fitted(*callbacks, ckpt_path=OLD / f"{name}.ckpt")  # it ended there: nothing is trained
    found = told(callbacks)
    assert [entry[:4] for entry in found] == [entry[:4] for entry in expected]
    for (*_, partial, numbers), (*_, was_partial, old) in zip(found, expected, strict=True):
        assert partial == was_partial
        assert same_numbers({key: numbers.get(key, math.nan) for key in old}, old, rtol=1e-6)
    again = CALLBACKS[name]()
    fitted(*again, epochs=3, ckpt_path=OLD / f"{name}.ckpt")
    assert [entry[:4] for entry in told(again)][: len(expected)] == [entry[:4] for entry in expected]
    assert name == "freezing" or len(history(again)) > len(expected)
