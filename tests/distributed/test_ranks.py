"""The helper itself: a failing rank must fail the test, and quickly."""

import os
import time

import pytest
import torch
import torch.distributed as dist

from tests.distributed.ranks import RanksFailedError, error_on_each, on_ranks


def test_every_rank_runs_and_talks_to_the_others():
    def job(rank, offset):
        total = torch.tensor([float(rank + offset)])
        dist.all_reduce(total)
        return rank, dist.get_world_size(), total.item()

    assert on_ranks(3, job, 1) == [(0, 3, 6.0), (1, 3, 6.0), (2, 3, 6.0)]


def test_an_error_on_one_rank_is_raised_here():
    def job(rank):
        if rank == 1:
            raise ValueError("rank one is unhappy")

    with pytest.raises(RanksFailedError, match="rank one is unhappy") as caught:
        on_ranks(2, job, timeout=2)
    assert caught.value.errors[1] == "ValueError: rank one is unhappy"


def test_a_rank_that_stays_away_from_a_collective_fails_within_the_timeout():
    def job(rank):
        if rank == 0:
            dist.all_reduce(torch.zeros(1))
        else:
            time.sleep(5)

    start = time.monotonic()
    with pytest.raises(RanksFailedError, match=r"(?i)timed? ?out|connection"):
        on_ranks(2, job, timeout=1)
    assert time.monotonic() - start < 8


def test_a_rank_that_dies_is_noticed():
    with pytest.raises(RanksFailedError, match="exit code 3"):
        on_ranks(1, lambda rank: os._exit(3), backend=None)


def test_errors_expected_everywhere_must_be_everywhere():
    def job(rank):
        if rank == 0:
            raise KeyError("only here")

    with pytest.raises(RanksFailedError, match="this rank met no error"):
        error_on_each(2, job, timeout=2)
