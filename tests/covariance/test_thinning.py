"""Thinned streams: how many rows, which, and that nothing is favoured."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_saturation.covariance.thinning import Thinning, take, thinning


def stream(batches, budget, expected=None):
    """Indices and weights of the rows taken of ``batches`` many rows each, and the last state."""
    state, offset, indices, weights = thinning(budget, expected=expected), 0, [], []
    for rows in batches:
        state, picked = take(state, rows)
        picked = torch.arange(rows) if picked is None else picked
        indices.append(picked + offset)
        weights.append(torch.full_like(picked, state.stride))
        offset += rows
    return torch.cat(indices), torch.cat(weights), state


batches = st.lists(st.integers(0, 300), min_size=1, max_size=30).filter(sum)


@settings(max_examples=100, deadline=None)
@given(batches=batches, budget=st.integers(1, 400))
def test_a_known_length_never_exceeds_the_budget(batches, budget):
    total = sum(batches)
    indices, weights, state = stream(batches, budget, expected=total)
    assert state.stride == math.ceil(total / budget)
    assert total // state.stride <= len(indices) <= budget
    assert bool((weights == state.stride).all())
    assert bool((indices.diff() > 0).all())
    assert 0 <= int(indices.min() if len(indices) else 0) <= int(indices.max() if len(indices) else 0) < total


@settings(max_examples=100, deadline=None)
@given(batches=batches, budget=st.integers(1, 400))
def test_an_unknown_length_weighs_as_many_rows_as_came_and_stays_within_its_bound(batches, budget):
    total = sum(batches)
    indices, weights, state = stream(batches, budget)
    assert len(indices) <= budget * (1 + math.log2(max(total / budget, 1)) / 2) + len(batches) + 1
    assert abs(int(weights.sum()) - total) <= 2 * state.stride
    assert int(weights.sum()) // state.stride <= budget + 1


@settings(max_examples=50, deadline=None)
@given(batches=batches, budget=st.integers(1, 400), data=st.data())
def test_how_a_known_stream_is_cut_into_batches_does_not_matter(batches, budget, data):
    total = sum(batches)
    cut = data.draw(st.integers(0, total))
    whole, _, _ = stream([total], budget, expected=total)
    parts, _, _ = stream([cut, total - cut], budget, expected=total)
    many, _, _ = stream(batches, budget, expected=total)
    assert torch.equal(whole, parts)
    assert torch.equal(whole, many)


@pytest.mark.parametrize("positions", [7, 49, 64, 1024])
@pytest.mark.parametrize("stride", [2, 7, 32, 64, 49 * 3, 1024, 4096])
def test_every_position_has_its_turn(positions, stride):
    """A rule of every n-th row would see one pixel in each of the cases where the numbers divide each other."""
    rows = positions * stride * 64
    indices, _, _ = stream([rows], rows // stride, expected=rows)
    counts = torch.bincount(indices % positions, minlength=positions)
    assert len(indices) == positions * 64
    assert counts.min() >= 32
    assert counts.max() <= 128


def test_the_rows_are_spread_over_the_whole_window():
    indices, _, _ = stream([1000] * 1000, 1000, expected=10**6)
    assert torch.equal(indices // 1000, torch.arange(1000))


def test_a_weighted_mean_over_an_unknown_length_is_that_of_all_rows():
    n = 200_000
    values = torch.linspace(0, 1, n, dtype=torch.float64) ** 2  # a drift that unweighted thinning would misjudge
    indices, weights, _ = stream([1000] * 200, 2000)
    weighted = (values[indices] * weights).sum() / weights.sum()
    assert weighted == pytest.approx(float(values.mean()), rel=2e-3)
    assert float(values[indices].mean()) < 0.8 * float(values.mean())


def test_ranks_with_equal_streams_take_equally_many_and_no_random_number_is_drawn():
    before = torch.get_rng_state()
    assert torch.equal(stream([100] * 50, 64)[0], stream([100] * 50, 64)[0])
    assert torch.equal(before, torch.get_rng_state())


def test_nothing_is_thinned_within_the_budget():
    state, picked = take(thinning(100, expected=100), 100)
    assert picked is None
    assert state == Thinning(100, 1, 100)


def test_arguments_are_checked():
    with pytest.raises(ValueError, match=r"`budget` of at least 1 row, got 0"):
        thinning(0)
    with pytest.raises(ValueError, match=r"`expected` to be a number of rows or None, got -1"):
        thinning(1, expected=-1)
    with pytest.raises(ValueError, match=r"`rows` to be a number of rows, got -2"):
        take(thinning(1), -2)
