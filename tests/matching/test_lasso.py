"""Sparse mapping against scikit-learn's lasso and NumPy's least squares."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_saturation.matching import lasso as module
from lightning_saturation.matching.lasso import sparse_mapping
from lightning_saturation.similarity.pairs import pair_moments


def units(seed, samples=120, x_units=8, y_units=5):
    rng = np.random.default_rng(seed)
    x = np.maximum(rng.standard_normal((samples, 4)) @ rng.standard_normal((4, x_units)) + 0.5, 0)
    y = np.tanh(x @ rng.standard_normal((x_units, y_units)) + rng.standard_normal((samples, y_units)))
    return x * 3 + 10, y


def standardised(rows):
    return (rows - rows.mean(0)) / rows.std(0)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), decay=st.sampled_from([1e-3, 1e-2, 0.1, 0.5]))
def test_it_is_scikit_learns_lasso(seed, decay):
    lasso = pytest.importorskip("sklearn.linear_model").Lasso
    x, y = units(seed)
    found = sparse_mapping(torch.from_numpy(x), torch.from_numpy(y), decay=decay)
    a, b = standardised(x), standardised(y)
    peer = lasso(alpha=decay, fit_intercept=False, tol=1e-10, max_iter=100_000).fit(a, b)
    np.testing.assert_allclose(found.loss[0], 0.5 * np.mean((b - peer.predict(a)) ** 2), atol=1e-5)
    residual = b - a @ found.weights[0].numpy()
    np.testing.assert_allclose(found.loss[0], 0.5 * np.mean(residual**2), atol=1e-12)
    objectives = [
        0.5 * np.mean((b - a @ w) ** 2, 0) + decay * np.abs(w).sum(0) for w in (found.weights[0].numpy(), peer.coef_.T)
    ]
    np.testing.assert_allclose(objectives[0], objectives[1], atol=2e-7)


def test_decay_zero_is_least_squares_of_least_norm():
    x, y = units(0)
    x = np.c_[x, x[:, :2]]
    found = sparse_mapping(torch.from_numpy(x), torch.from_numpy(y), decay=0)
    expected = np.linalg.lstsq(standardised(x), standardised(y), rcond=1e-8)[0]
    np.testing.assert_allclose(found.weights[0], expected, atol=1e-7)


def test_several_decays_at_once_from_rows_and_from_moments():
    x, y = (torch.from_numpy(rows) for rows in units(1))
    decays = [0.0, 1e-5, 1e-3, 0.1, 1.5]
    found = sparse_mapping(x, y, decay=decays)
    assert found.weights.shape == (5, 8, 5)
    assert (found.loss.diff() >= -1e-9).all()
    assert (found.used.diff() <= 1e-9).all()
    # Correlations are at most 1: no unit is worth a penalty above it, and predicting zero costs one half.
    assert found.loss[-1] == 0.5
    assert found.used[-1] == 0
    torch.testing.assert_close(sparse_mapping(pair_moments(x, y), decay=decays).loss, found.loss)
    torch.testing.assert_close(sparse_mapping(5 * x - 2, y, decay=decays).loss, found.loss, rtol=1e-5, atol=1e-6)


def test_constant_units_neither_predict_nor_count():
    x, y = (torch.from_numpy(rows) for rows in units(2))
    x[:, 3], y[:, 1] = 1.0, 2.0
    found = sparse_mapping(x, y, decay=[0.0, 0.01])
    assert (found.weights[:, 3] == 0).all()
    assert (found.weights[:, :, 1] == 0).all()
    alone = sparse_mapping(x, y[:, [0, 2, 3, 4]], decay=[0.0, 0.01])
    torch.testing.assert_close(found.loss, alone.loss)


def test_stopping_early_says_so(monkeypatch):
    monkeypatch.setattr(module, "SWEEPS", 1)
    x, y = (torch.from_numpy(rows) for rows in units(3))
    with pytest.warns(UserWarning, match="5 of 5 units did not converge in 1 sweeps at decay 0.001"):
        sparse_mapping(x, y, decay=1e-3)


@pytest.mark.parametrize("decay", [-0.1, [0.1, float("nan")], float("inf")])
def test_bad_decay(decay):
    x, y = (torch.from_numpy(rows) for rows in units(4))
    with pytest.raises(ValueError, match="finite, non-negative `decay`"):
        sparse_mapping(x, y, decay=decay)
