"""Spectra of few rows: those of the covariance, at a fraction of its cost."""

import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_saturation import measure_saturation
from lightning_saturation.covariance.eigenvalues import gram_eigenvalues
from lightning_saturation.covariance.row_buffer import RowBuffer
from lightning_saturation.saturation.window import Window


def rows(seed, samples, features, offset=0.0):
    generator = np.random.default_rng(seed)
    return torch.from_numpy(generator.standard_normal((samples, features)) * generator.random(features) ** 4 + offset)


def dense(x):
    """Return the eigenvalues of the covariance by NumPy, largest first."""
    return np.linalg.eigvalsh(np.cov(x.double().numpy(), rowvar=False))[::-1]


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 40), st.integers(2, 60), st.sampled_from([0.0, 1e4]), st.integers(0, 99))
def test_eigenvalues_are_those_of_the_covariance(samples, features, offset, seed):
    x = rows(seed, samples, features, offset)
    expected = dense(x)
    found = gram_eigenvalues(x)
    assert found.shape == (features,)
    assert bool((found[:-1] >= found[1:]).all())
    np.testing.assert_allclose(found, expected.clip(0), rtol=1e-9, atol=1e-12 * (1 + expected[0]))


def test_one_row_has_no_variance_and_nan_is_an_error():
    assert torch.equal(gram_eigenvalues(torch.ones(1, 3)), torch.zeros(3, dtype=torch.float64))
    with pytest.raises(ValueError, match="Expected a finite"):
        gram_eigenvalues(torch.tensor([[1.0, 2.0, 3.0], [torch.nan, 1.0, 2.0]]))


def window_of(*parts):
    window = Window(["a"])
    for part in parts:
        window.begin_batch()
        window.add("a", part)
    return window


@pytest.mark.parametrize("samples", [2, 7, 30, 63, 64, 65, 200])
@pytest.mark.parametrize("delta", [0.5, 0.9, 0.99, 0.999])
def test_the_integer_is_that_of_the_dense_problem_on_both_sides_of_the_width(samples, delta):
    x = rows(samples, samples, 64).float()
    layer = window_of(*x.split(5)).statistics(delta=delta)["a"]
    expected = dense(x).clip(0)
    dimension = int((expected.cumsum() < delta * expected.sum()).sum()) + 1
    assert (layer.samples, layer.features, layer.intrinsic_dimension) == (samples, 64, dimension)
    np.testing.assert_allclose(layer.eigenvalues, expected, rtol=1e-9, atol=1e-12)


def test_few_rows_with_nan_are_left_out_and_counted():
    x = rows(0, 9, 20)
    x[3] = torch.nan
    layer = window_of(x).statistics(delta=0.9)["a"]
    assert (layer.samples, layer.skipped) == (8, 1)
    np.testing.assert_allclose(layer.eigenvalues[:8], dense(x[[0, 1, 2, 4, 5, 6, 7, 8]])[:8], rtol=1e-9, atol=1e-12)
    layer = window_of(torch.full((2, 20), torch.inf)).statistics(delta=0.9)["a"]
    assert (layer.samples, layer.skipped) == (0, 2)
    assert np.isnan(layer.saturation)


def test_a_look_into_an_open_window_loses_nothing():
    x = rows(1, 12, 40)
    window = window_of(x[:5])
    assert window.statistics(delta=0.9)["a"].samples == 5
    window.add("a", x[5:])
    np.testing.assert_allclose(window.statistics(delta=0.9)["a"].eigenvalues[:12], dense(x)[:12], rtol=1e-8, atol=1e-12)
    state = window.to_state()
    window.add("a", x)
    window.load_state(state)
    again = window.statistics(delta=0.9)["a"]
    np.testing.assert_allclose(again.eigenvalues[:12], dense(x)[:12], rtol=1e-8, atol=1e-12)
    window.reset()
    window.add("a", x[:4])
    assert window.statistics(delta=0.9)["a"].samples == 4


def test_rows_are_few_while_they_are_fewer_than_features_and_not_summed_up():
    buffer = RowBuffer()
    buffer.add(rows(0, 9, 10))
    assert torch.equal(buffer.few(), rows(0, 9, 10))
    buffer.add(rows(1, 1, 10))
    assert buffer.few() is None
    buffer.reset()
    assert buffer.few() is None
    buffer.add(rows(0, 3, 10))
    buffer.moments()
    assert buffer.few() is None


def test_a_budgets_rows_are_few_too():
    model = torch.nn.Linear(4, 50)
    x = torch.randn(30, 6, 4, generator=torch.Generator().manual_seed(0))
    report = measure_saturation(model, [x], pooling="positions", max_samples=20, progress=False)
    (layer,) = report.layers.values()
    assert layer.samples <= 20
    assert layer.total_variance == pytest.approx(float(layer.eigenvalues.sum()))


def test_many_wide_layers_with_few_rows_take_no_time():
    window = Window([str(index) for index in range(60)])
    for name in window.names:
        window.add(name, rows(int(name), 8, 1500).float())
    started = time.process_time()
    window.statistics(delta=0.99)
    few = time.process_time() - started
    x = rows(0, 8, 1500)
    started = time.process_time()
    dense(x)
    assert few < 10 * (time.process_time() - started)  # 60 layers in less than ten of theirs
