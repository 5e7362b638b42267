"""Thinned streams: how many rows, which, and that nothing is favoured."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import poisson

from lightning_saturation.covariance.spectrum import saturation
from lightning_saturation.covariance.thinning import Thinning, next_row, take, thinning


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
    # Where the stride doubles, one stratum of each length is cut: 3/2 (s + s/2 + ...) < 3 s; and the last one is, too.
    assert abs(int(weights.sum()) - total) <= 4 * state.stride
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


def test_at_every_stride_every_position_has_its_share():
    """As if rows were drawn at random, which no sequence with a period is for all numbers of positions."""
    rng, beyond, expected, largest, first = np.random.default_rng(0), 0, 0.0, 0.0, []
    for stride in range(2, 1201):
        positions, turns = int(rng.integers(4, 1025)), 16
        rows = stride * positions * turns
        indices, _, _ = stream([rows], positions * turns, expected=rows)
        assert len(indices) == positions * turns
        error = (turns * (1 - 1 / positions)) ** 0.5
        away = (np.bincount(indices.numpy() % positions, minlength=positions) - turns) / error
        beyond, largest = beyond + int((abs(away) > 4).sum()), max(largest, abs(away).max())
        expected += positions * poisson.sf(np.ceil(turns + 4 * error) - 1, turns)
        first.append(abs(away[0]))
    assert max(first) <= 4  # a class token
    # Some of 631,304 counts are beyond four standard errors by chance: no more of them than of random rows.
    assert beyond <= expected + 4 * expected**0.5
    assert largest <= 7


@pytest.mark.parametrize("images", [1_568, 1_600, 2_528])
def test_saturation_is_that_of_random_rows_whatever_the_number_of_images(images):
    """A 1×1 convolution of 128 channels on maps of 16×16 whose positions differ."""
    rng = np.random.default_rng(0)
    direction = rng.standard_normal((256, 128)) * 0.99 ** np.arange(128)

    def measured(indices):
        noise = np.random.default_rng(1)
        x = noise.standard_normal((len(indices), 1)) * direction[indices % 256]
        eigenvalues = np.linalg.eigvalsh(np.cov((x + 0.01 * noise.standard_normal(x.shape)).T))
        return float(saturation(torch.from_numpy(eigenvalues), continuous=True))

    indices, _, _ = stream([32 * 256] * (images // 32), 4096, expected=images * 256)
    drawn = [measured(rng.choice(images * 256, len(indices), replace=False)) for _ in range(8)]
    assert abs(measured(indices.numpy()) - np.mean(drawn)) <= 4 * np.std(drawn)


GROUPED = {"expected": 2048, "batches": 1024, "positions": 2}


def test_rows_in_groups_have_the_same_chance_each():
    counts = torch.zeros(2048)
    for seed in range(400):
        state = thinning(256, seed=seed, **GROUPED)
        assert (state.group, state.near, state.grouped) == (4, 2, 256)
        _, picked = take(state, 2048)
        assert len(picked) == len(picked.unique()) == 256
        assert torch.equal(picked // 32, torch.arange(64).repeat_interleave(4))
        counts[picked] += 1
    # 400 draws of one in eight: chi-squared with 2,047 degrees of freedom, by seeds of 64 each.
    statistic = float(((counts - 50) ** 2 / (50 * 7 / 8)).sum())
    assert abs(statistic - 2047) <= 4 * (2 * 2047) ** 0.5


@settings(max_examples=50, deadline=None)
@given(
    budget=st.integers(300, 900),
    rows=st.integers(3_000, 40_000),
    batches=st.integers(1, 900),
    positions=st.integers(1, 9),
)
def test_groups_keep_to_the_budget_and_know_no_split(budget, rows, batches, positions):
    state = thinning(budget, expected=rows, batches=batches, positions=positions)
    _, whole = take(state, rows)
    assert rows // state.stride <= len(whole) <= budget
    parts, seen = [], 0
    for part in torch.arange(rows).tensor_split(batches):
        state, picked = take(state, len(part))
        parts.append(picked + seen)
        seen += len(part)
    assert torch.equal(torch.cat(parts).sort().values, whole.sort().values)


@settings(max_examples=100, deadline=None)
@given(
    budget=st.integers(10, 900),
    expected=st.integers(0, 40_000),
    batches=st.integers(1, 900),
    positions=st.integers(1, 9),
    seed=st.integers(0, 99),
    sizes=st.sampled_from([1, 7, 97]),
)
def test_no_row_is_due_before_the_next_one(budget, expected, batches, positions, seed, sizes):
    """Also where the stream goes on beyond what was expected, and the stride doubles."""
    state, looks, taken = thinning(budget, expected=expected, batches=batches, positions=positions), 0, 0
    state = state._replace(seed=seed)
    for _ in range(300):
        due = next_row(state)
        assert due >= state.seen
        after, picked = take(state, sizes)
        found = sizes if picked is None else len(picked)
        if state.seen + sizes <= due:
            assert found == 0
            assert after.stride == state.stride
        else:
            looks, taken = looks + 1, taken + (found > 0)
        state = after
    # It is no bound that says nothing; but single rows within a stretch are each looked at.
    assert sizes < 97 or looks <= 2 * taken + 10


def test_most_batches_of_a_long_window_need_no_look():
    """800 batches of 32 images with 64 positions each, of which 4,096 rows are taken."""
    taken = {}
    for name, known in {"everywhere": {}, "grouped": {"batches": 800, "positions": 64}}.items():
        _, taken[name] = take(thinning(4096, expected=800 * 2048, **known), 800 * 2048)
        assert len(taken[name]) == 4096
    assert len((taken["everywhere"] // 2048).unique()) > 780
    assert len((taken["grouped"] // 2048).unique()) < 200
    # The rows still come from nearly as many images, and from all over the window.
    images = {name: len((picked // 64).unique()) for name, picked in taken.items()}
    assert images["grouped"] > 0.8 * images["everywhere"]
    assert int((taken["grouped"] // 12_800).bincount().max()) <= 64
    # Where images are fewer than rows, each of them is looked at.
    assert thinning(4096, expected=50_000 * 4, batches=390, positions=4 * 49).grouped == 0


def test_the_rows_of_a_group_are_spread_over_a_batch():
    state = thinning(4096, expected=1_000_000, batches=1000, positions=1)
    assert state.group * state.near == pytest.approx(1000, rel=0.05)


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
