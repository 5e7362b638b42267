"""Joint moments: rows, batches, merges and origins agree."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_saturation.covariance.moments import merge_moments, moments
from lightning_saturation.similarity.pairs import joint_rows, move_origin, pair_moments, row_mean, split_moments

LAWS = settings(max_examples=20, deadline=None)


def rows(seed, samples=40, x_features=5, y_features=3, offset=0.0):
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.standard_normal((samples, x_features)) * 2 + offset)
    y = torch.from_numpy(rng.standard_normal((samples, y_features)) - offset)
    y[:, 0] += x[:, 1]
    return x, y


def assert_same(left, right, rtol=1e-9):
    assert int(left.samples) == int(right.samples)
    for name in ("xx", "yy", "xy", "lengths"):
        torch.testing.assert_close(getattr(left, name), getattr(right, name), rtol=rtol, atol=rtol, msg=name)


def test_scatters_and_lengths_are_numpys():
    x, y = rows(0)
    pair = pair_moments(x, y)
    xc, yc = (z.numpy() - z.numpy().mean(0) for z in (x, y))
    lengths = np.stack([(xc**2).sum(1), (yc**2).sum(1)])
    np.testing.assert_allclose(pair.xy, xc.T @ yc, atol=1e-12)
    np.testing.assert_allclose(pair.xx, xc.T @ xc, atol=1e-12)
    np.testing.assert_allclose(pair.yy, yc.T @ yc, atol=1e-12)
    np.testing.assert_allclose(pair.lengths, lengths @ lengths.T, rtol=1e-12)


@LAWS
@given(cut=st.integers(1, 39), seed=st.integers(0, 99), offset=st.sampled_from([0.0, 1e4]))
def test_halves_merge_to_the_whole_whatever_their_origins(cut, seed, offset):
    x, y = rows(seed, offset=offset)
    whole = pair_moments(x, y)
    origins = [torch.cat([x[:cut].mean(0), y[:cut].mean(0)]), torch.cat([x[cut:].mean(0), y[cut:].mean(0)])]
    halves = [
        moments(joint_rows(x[part], y[part], origin=origin))
        for part, origin in zip((slice(None, cut), slice(cut, None)), origins, strict=True)
    ]
    moved = move_origin(halves[1], x_features=5, origin=origins[1], to=origins[0])
    assert_same(split_moments(merge_moments(halves[0], moved), x_features=5, origin=origins[0]), whole)


def test_bad_samples_are_left_out_with_a_warning():
    x, y = rows(2)
    kept = pair_moments(x[2:], y[2:])
    x[0, 0], y[1, 2] = torch.nan, torch.inf
    with pytest.warns(UserWarning, match="2 of 40 samples hold NaN or infinity"):
        assert_same(pair_moments(x, y), kept)


def test_mean_of_no_rows_is_zero():
    assert row_mean(torch.full((2, 3), torch.nan), torch.tensor([False, False])).tolist() == [0.0, 0.0, 0.0]


def test_other_sample_counts_are_an_error():
    with pytest.raises(ValueError, match="rows of the same samples, got 40 and 39"):
        pair_moments(torch.zeros(40, 2), torch.zeros(39, 2))
