"""Promise 8: trouble on one rank leaves all ranks with the same training and the same history, and nobody waiting."""

from __future__ import annotations

import os
import warnings

import pytest
import torch
import torch.distributed as dist

from tests.contract.callbacks import CALLBACKS, WATCHING, history, same_history
from tests.contract.faults import HOOKS, REPEATED, SHARE, Trouble, some
from tests.contract.runs import Ending, Learner, seed
from tests.distributed.ranks import RanksFailedError, on_ranks
from tests.distributed.test_monitor_ranks import shard, train
from tests.tiny import quiet

pytestmark = [*quiet, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that are forked")]

FAILING = 1
"""The rank that has trouble."""

TIMEOUT = 20.0
"""Seconds after which a collective that somebody does not join fails."""


def fitted(rank, world, *callbacks):
    seed()
    model = Learner()
    train(rank, world, model, *callbacks, max_epochs=400, limit_train_batches=2, val=shard(rank, world),
          limit_val_batches=1, num_sanity_val_steps=0, precision="32-true")  # fmt: skip
    return [value.detach().clone() for value in model.state_dict().values()]


def survived(rank, world, name, faults, *, hooks, for_good=False):
    """Return the faults that were met here, the epochs, whether the weights are those of a run without us, history."""
    callbacks = CALLBACKS[name]()
    trouble = Trouble(callbacks, faults if rank == FAILING else (), hooks=hooks, for_good=for_good)
    ending = Ending(4 if for_good else None, trouble)
    weights = fitted(rank, world, *callbacks, ending)
    control = fitted(rank, world, Ending(len(ending.fired)))
    same = name not in WATCHING or all(map(torch.equal, weights, control))
    return [key for key, _ in trouble.fired], len(ending.fired), same, history(callbacks)


def job(rank, world, name):
    """Return what there is to fail, by hook, and what each of two runs left here."""
    warnings.simplefilter("ignore")
    callbacks = CALLBACKS[name]()
    looking = Trouble(callbacks)
    fitted(rank, world, *callbacks, Ending(4))
    found = [looking.found]
    dist.broadcast_object_list(found, src=FAILING)
    inside = some((key for key, hook in found[0].items() if hook not in REPEATED), name)
    at_end = [key for key, hook in found[0].items() if hook in REPEATED][:1]
    outcomes = [survived(rank, world, name, inside, hooks=HOOKS - REPEATED)]
    outcomes.append(survived(rank, world, name, at_end, hooks=REPEATED - {"on_exception"}, for_good=True))
    return found[0], outcomes


CASES = [(name, 2) for name in CALLBACKS] + [(name, 3) for name in (CALLBACKS if SHARE == 1 else ["saturation"])]


@pytest.mark.parametrize(("name", "world"), CASES)
def test_nobody_waits_and_all_know_the_same(name, world):
    try:
        results = on_ranks(world, job, world, name, timeout=TIMEOUT)
    except RanksFailedError as error:
        pytest.fail(f"{error.errors}", pytrace=False)
    found = results[FAILING][0]
    assert found
    for run in zip(*(outcomes for _, outcomes in results), strict=True):
        fired, epochs, same, expected = run[FAILING]
        assert not any(others for rank, (others, *_) in enumerate(run) if rank != FAILING)
        assert [each[1:3] for each in run] == [(epochs, same)] * world
        assert same, f"other weights after trouble in {fired}"
        assert all(same_history(entries, expected) for *_, entries in run), fired
    assert len(results[FAILING][1][0][0]) > len(found) / 3 / SHARE
