"""Moments of rows: exact at any offset, the same for any split, mergeable in any order."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_saturation.covariance.moments import (
    Moments,
    add_rows,
    covariance,
    empty_sums,
    from_sums,
    merge_moments,
    moments,
    to_sums,
)

LAWS = settings(max_examples=30, deadline=None)
SEEDS = st.integers(0, 999)
OFFSETS = st.sampled_from([0.0, 1.0, -1e2, 1e4])
DTYPES = st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16])


def draw(seed, samples=60, features=5, offset=0.0, dtype=torch.float64):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((samples, features)) @ rng.standard_normal((features, features)) + offset
    return torch.from_numpy(x).to(dtype)


def in_parts(x, cuts):
    return torch.tensor_split(x, sorted(cuts))


def accumulated(parts, features):
    sums = empty_sums(features)
    for part in parts:
        add_rows(sums, part)
    return from_sums(sums)


def assert_is_numpys(ours: Moments, x, tolerance=1e-10):
    """Relative error in Frobenius norm against float64 on the rows as given."""
    stacked = x.double().numpy()
    reference = np.cov(stacked.T)
    assert int(ours.samples) == len(stacked)
    assert np.linalg.norm(covariance(ours).numpy() - reference) <= tolerance * np.linalg.norm(reference)
    assert np.linalg.norm(ours.mean.numpy() - stacked.mean(0)) <= tolerance * np.linalg.norm(stacked.mean(0)) + 1e-12


def assert_same(left, right, rtol=1e-10):
    assert int(left.samples) == int(right.samples)
    for one, other in ((left.mean, right.mean), (left.scatter, right.scatter)):
        assert (one - other).norm() <= rtol * max(other.norm(), 1e-300)


@LAWS
@given(seed=SEEDS, offset=OFFSETS, dtype=DTYPES, cuts=st.lists(st.integers(0, 60), max_size=8))
def test_any_split_into_batches_is_numpys_covariance(seed, offset, dtype, cuts):
    x = draw(seed, offset=offset, dtype=dtype)
    assert_is_numpys(accumulated(in_parts(x, cuts), 5), x)


def test_single_rows_and_a_far_first_batch_lose_nothing():
    x = draw(0, samples=500, offset=1e4, dtype=torch.float32)
    assert_is_numpys(accumulated(x.split(1), 5), x)
    x[0] = 0.0  # the shift is then 1e4 away from all that follows
    assert_is_numpys(accumulated(x.split(1), 5), x)
    x[1:] += torch.linspace(0, 1e4, 499)[:, None]  # a mean that wanders
    assert_is_numpys(accumulated(x.split(7), 5), x)


@pytest.mark.parametrize("left", [1, 5])
def test_the_shift_is_the_mean_of_the_first_finite_rows_also_among_others(left):
    """Next to a row with NaN too, no digit is lost at an offset where half of it would cost seven."""
    x = draw(7, samples=60) + 1e8
    spoiled = torch.cat([torch.full((1, 5), torch.nan, dtype=x.dtype), x])
    sums = empty_sums(5)
    assert int(add_rows(sums, spoiled[: 1 + left])) == 1
    add_rows(sums, spoiled[1 + left :])
    assert_is_numpys(from_sums(sums), x)
    torch.testing.assert_close(sums.shift, x[:left].mean(0), rtol=1e-15, atol=0)


def test_float32_sums_would_have_lost_it():
    x = draw(1, samples=500, offset=1e4, dtype=torch.float32)
    naive = x.T @ x / 500 - torch.outer(x.mean(0), x.mean(0))
    reference = np.cov(x.double().numpy().T)
    assert np.linalg.norm(naive.double().numpy() - reference) > 1e-3 * np.linalg.norm(reference)
    assert_is_numpys(moments(x), x, tolerance=1e-13)


@LAWS
@given(seed=SEEDS, offset=OFFSETS, cuts=st.tuples(st.integers(0, 60), st.integers(0, 60)))
def test_merging_is_stacking_commutative_and_associative(seed, offset, cuts):
    x = draw(seed, offset=offset)
    x[: min(cuts)] += 1e3
    a, b, c = (moments(part) for part in in_parts(x, cuts))
    whole = moments(x)
    assert_same(merge_moments(merge_moments(a, b), c), whole)
    assert_same(merge_moments(a, merge_moments(b, c)), whole)
    assert_same(merge_moments(c, merge_moments(b, a)), whole)


def test_nothing_merges_with_nothing_and_with_something():
    nothing, something = from_sums(empty_sums(5)), moments(draw(2, offset=1e4))
    assert_same(merge_moments(nothing, something), something, rtol=0)
    assert_same(merge_moments(something, nothing), something, rtol=0)
    assert_same(merge_moments(nothing, nothing), nothing, rtol=0)


def test_merging_leaves_its_arguments_alone():
    a, b = moments(draw(3)), moments(draw(4, offset=1e2))
    copies = [Moments(*(tensor.clone() for tensor in m)) for m in (a, b)]
    merge_moments(a, b)
    for m, copy in zip((a, b), copies, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(m, copy, strict=True))


def test_merging_more_rows_than_float32_counts():
    half = Moments(torch.tensor(2**24 + 1), torch.zeros(1).double(), torch.ones(1, 1).double())
    one = moments(torch.ones(1, 1))
    merged = merge_moments(half, one)
    assert int(merged.samples) == 2**24 + 2
    assert float(merged.mean) == pytest.approx(1 / (2**24 + 2), rel=1e-12)


@LAWS
@given(seed=SEEDS, cut=st.integers(1, 59))
def test_sums_of_moments_go_on_accumulating(seed, cut):
    x = draw(seed, offset=1e4)
    first = moments(x[:cut])
    sums = to_sums(Moments(*(tensor.clone() for tensor in first)))
    add_rows(sums, x[cut:])
    assert_is_numpys(from_sums(sums), x)


@LAWS
@given(seed=SEEDS)
def test_a_turn_of_the_features_turns_the_covariance(seed):
    x = draw(seed, offset=1e2)
    turn = torch.linalg.qr(draw(seed + 1, samples=5)).Q
    ours, turned = covariance(moments(x)), covariance(moments(x @ turn))
    torch.testing.assert_close(turned, turn.T @ ours @ turn, rtol=1e-9, atol=1e-9)


@LAWS
@given(seed=SEEDS, scale=st.floats(1e-3, 1e3), shift=st.floats(-1e4, 1e4))
def test_scale_squares_and_shift_vanishes(seed, scale, shift):
    x = draw(seed)
    ours, moved = covariance(moments(x)), covariance(moments(x * scale + shift))
    assert (moved - scale**2 * ours).norm() <= 1e-7 * scale**2 * ours.norm() + 1e-9 * scale


@LAWS
@given(seed=SEEDS, bad=st.lists(st.integers(0, 59), min_size=1, max_size=20, unique=True), first=st.booleans())
def test_rows_with_nan_or_infinity_are_left_out_and_counted(seed, bad, first):
    x = draw(seed, offset=1e3)
    if first:
        x[:10] = torch.nan  # the whole first batch
    for index, row in enumerate(bad):
        x[row, index % 5] = (torch.nan, torch.inf, -torch.inf)[index % 3]
    sums = empty_sums(5)
    skipped = sum(int(add_rows(sums, part)) for part in x.split(10))
    good = x[x.isfinite().all(1)]
    assert skipped == len(x) - len(good)
    assert_is_numpys(from_sums(sums), good)


def test_the_caller_keeps_its_rows():
    x = draw(5, offset=1e4)
    x[3] = torch.nan
    before = x.clone()
    moments(x)
    assert torch.equal(x.nan_to_num(-1), before.nan_to_num(-1))


def test_rows_that_need_a_gradient_leave_no_graph():
    x = draw(6).requires_grad_()
    assert not moments(x).scatter.requires_grad


@pytest.mark.parametrize("samples", [0, 1])
def test_fewer_than_two_rows_have_no_covariance(samples):
    m = moments(torch.full((samples, 3), 7.0))
    assert int(m.samples) == samples
    assert torch.equal(covariance(m), torch.zeros(3, 3, dtype=torch.float64))
    assert m.mean.tolist() == [7.0 * samples] * 3


def test_autocast_does_not_reach_the_product():
    x = draw(7, offset=1e3, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        m = moments(x)
    assert_is_numpys(m, x, tolerance=1e-12)
    apart, within = empty_sums(x.shape[1]), empty_sums(x.shape[1])
    add_rows(apart, x, single=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        add_rows(within, x, single=True)
    assert torch.equal(apart.products, within.products)


def test_sums_born_in_inference_mode_take_rows_outside_of_it():
    x = draw(8)
    with torch.inference_mode():
        sums = empty_sums(5)
        add_rows(sums, x[:20])
    add_rows(sums, x[20:])
    assert_is_numpys(from_sums(sums), x)


def test_no_random_number_is_drawn():
    state = torch.get_rng_state()
    moments(draw(9))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("features", [1, 63, 64, 65, 130])
def test_of_wide_layers_little_more_than_one_triangle_is_multiplied(features):
    """From 64 features on in four steps: none of what lies below the blocks on the diagonal."""
    x = draw(1, samples=40, features=features, offset=3.0)
    sums = empty_sums(features)
    add_rows(sums, x[:25])
    add_rows(sums, x[25:], weight=2)
    assert_is_numpys(from_sums(sums), torch.cat([x, x[25:]]))
    step = -(-features // 4) if features >= 64 else features
    block = torch.arange(features) // step
    multiplied = block[:, None] <= block
    assert bool((sums.products[~multiplied] == 0).all())
    assert bool((sums.products[multiplied] != 0).all())
