"""Saturation as a metric: laws, ties, missing rows."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_saturation import Saturation

LAWS = settings(max_examples=25, deadline=None)


def rows(seed, samples=60, features=6, rank=6):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.standard_normal((samples, rank)) @ rng.standard_normal((rank, features)))


def value(x, delta=0.99):
    metric = Saturation(delta)
    metric.update(x)
    return float(metric.compute())


@LAWS
@given(seed=st.integers(0, 999), delta=st.floats(0.05, 0.999))
def test_it_is_numpys_count_of_eigenvalues(seed, delta):
    x = rows(seed)
    variance = np.linalg.eigvalsh(np.cov(x.numpy().T))[::-1]
    expected = np.searchsorted(np.cumsum(variance), delta * variance.sum()) + 1
    assert value(x, delta) == expected / 6


@LAWS
@given(seed=st.integers(0, 999), rank=st.integers(1, 6))
def test_data_of_low_rank_fill_no_more_than_their_rank(seed, rank):
    assert value(rows(seed, rank=rank), delta=1.0) == rank / 6


@LAWS
@given(seed=st.integers(0, 999), scale=st.floats(1e-3, 1e3), shift=st.floats(-1e3, 1e3))
def test_turning_scaling_and_shifting_change_nothing(seed, scale, shift):
    x = rows(seed)
    turn = torch.linalg.qr(rows(seed + 1, samples=6)).Q
    assert value(x @ turn * scale + shift, 0.9) == value(x, 0.9)


@LAWS
@given(seed=st.integers(0, 999), size=st.integers(1, 60))
def test_batching_changes_nothing(seed, size):
    x, metric = rows(seed), Saturation()
    for part in x.split(size):
        metric.update(part)
    assert float(metric.compute()) == value(x)


def test_fewer_rows_than_features_cap_it():
    assert value(torch.eye(8)[:4], delta=1.0) == 3 / 8


def test_constant_rows_fill_nothing():
    assert value(torch.full((5, 3), 1e4)) == 0.0


def test_without_rows_it_is_missing():
    metric = Saturation()
    with pytest.warns(UserWarning, match="before the ``update``"):
        assert metric.compute().isnan()
    metric.update(torch.full((3, 2), torch.nan))
    assert metric.compute().isnan()
    assert int(metric.skipped) == 3


def test_the_value_is_a_float64_scalar_and_the_input_may_be_half():
    metric = Saturation()
    metric.update(rows(0).bfloat16())
    assert metric.compute().shape == ()
    assert metric.compute().dtype == torch.float64


@pytest.mark.parametrize("delta", [0, -0.5, 1.01, float("nan")])
def test_a_delta_out_of_range_is_an_error_at_the_door(delta):
    with pytest.raises(ValueError, match=rf"Expected `delta` in \(0, 1\], got {delta}"):
        Saturation(delta=delta)


def test_an_unknown_argument_is_an_error():
    with pytest.raises(ValueError, match="Unexpected keyword arguments: `detla`"):
        Saturation(detla=0.9)


def test_arithmetic_of_metrics_and_plots():
    from matplotlib import pyplot

    metric = Saturation()
    percent = metric * 100
    percent.update(rows(0))
    assert float(percent.compute()) == 100 * float(metric.compute())
    figure, axes = metric.plot()
    assert axes.get_ylim()[1] >= 1.0
    pyplot.close(figure)
