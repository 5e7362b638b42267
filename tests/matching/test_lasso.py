"""Sparse mapping against scikit-learn's lasso and NumPy's least squares."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_saturation.matching import lasso as module
from lightning_saturation.matching.lasso import sparse_mapping
from lightning_saturation.matching.signs import search_signs
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


def collinear(near, seed=0):
    """Units of six dimensions but for noise of size ``near``, in which the targets are."""
    rng = np.random.default_rng(seed)
    base = rng.standard_normal((400, 6))
    x = base @ rng.standard_normal((6, 40)) + near * rng.standard_normal((400, 40))
    y = x @ rng.standard_normal((40, 6)) * 0.3 / near + base @ rng.standard_normal((6, 6))
    return torch.from_numpy(x), torch.from_numpy(y + 0.1 * rng.standard_normal(y.shape))


@pytest.mark.parametrize("near", [1e-2, 1e-3, 1e-5])
@pytest.mark.parametrize("decay", [1e-5, 1e-3])
def test_nearly_collinear_units_reach_the_optimum(near, decay):
    """Certified by the duality gap of the rows, and at least as good as scikit-learn's; no warning."""
    x, y = collinear(near)
    found = sparse_mapping(x, y, decay=decay)
    a, b = (torch.from_numpy(standardised(rows.numpy())) for rows in (x, y))
    weights = found.weights[0]
    residual = b - a @ weights
    slope = a.T @ residual / len(a)
    assert float(slope.abs().max()) <= decay + 1e-9
    objective = 0.5 * residual.square().mean(0) + decay * weights.abs().sum(0)
    scale = (decay / slope.abs().max(0).values).clamp(max=1)
    dual = scale * (residual * b).mean(0) - 0.5 * scale.square() * residual.square().mean(0)
    assert float((objective - dual).max()) <= 1e-8
    np.testing.assert_allclose(found.loss[0], 0.5 * float(residual.square().mean()), atol=1e-9)
    lasso = pytest.importorskip("sklearn.linear_model").Lasso
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's does not converge
        theirs = lasso(alpha=decay, fit_intercept=False, tol=1e-10, max_iter=2000).fit(a.numpy(), b.numpy()).coef_.T
    errors = 0.5 * (b.numpy() - a.numpy() @ theirs) ** 2
    assert (objective.numpy() <= errors.mean(0) + decay * np.abs(theirs).sum(0) + 1e-10).all()


def test_the_duality_gap_is_that_of_its_definition():
    x, y = (torch.from_numpy(standardised(rows)) for rows in units(5))
    gram, target = x.T @ x / len(x), x.T @ y / len(x)
    weights = torch.randn(8, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) / 5
    gap, objective = module._duality_gap(gram, target, weights, 0.03)
    residual = y - x @ weights
    torch.testing.assert_close(objective, 0.5 * residual.square().mean(0) + 0.03 * weights.abs().sum(0))
    scale = (0.03 / (x.T @ residual / len(x)).abs().max(0).values).clamp(max=1)
    dual = 0.5 - 0.5 * (y - scale * residual).square().mean(0)
    torch.testing.assert_close(gap, objective - dual)


def test_signs_are_found_from_any_start():
    x, y = (torch.from_numpy(standardised(rows)) for rows in units(6))
    gram, target = x.T @ x / len(x), x.T @ y[:, 0] / len(x)
    found = [search_signs(gram, target, 0.01, start * torch.ones(8, dtype=torch.float64)) for start in (0.0, 1.0, -3.0)]
    for weights in found:
        torch.testing.assert_close(weights, found[0], rtol=0, atol=1e-9)
        slope = target - gram @ weights
        torch.testing.assert_close(slope[weights != 0], 0.01 * weights.sign()[weights != 0], rtol=0, atol=1e-9)
        assert float(slope.abs().max()) <= 0.01 + 1e-9


def test_signs_with_copies_and_constant_units():
    """A copy makes the system singular, a constant unit would divide by zero; the optimum does not change."""
    x, y = (torch.from_numpy(standardised(rows)) for rows in units(6))
    wide = torch.cat([x, x[:, :3], torch.zeros(len(x), 1).double()], dim=1)
    gram, target = wide.T @ wide / len(x), wide.T @ y[:, 0] / len(x)
    alone = search_signs(gram[:8, :8], target[:8], 0.01, torch.zeros(8).double())
    for start in (torch.zeros(12).double(), torch.cat([torch.linspace(-1, 1, 11), torch.zeros(1)]).double()):
        weights = search_signs(gram, target, 0.01, start)
        assert weights[11] == 0
        together = weights[:8] + torch.cat([weights[8:11], torch.zeros(5).double()])
        torch.testing.assert_close(together, alone, rtol=0, atol=1e-8)


def test_what_does_not_converge_says_by_how_much(monkeypatch):
    monkeypatch.setattr(module, "SWEEPS", 1)
    monkeypatch.setattr(module, "search_signs", lambda gram, target, decay, start: start)
    x, y = (torch.from_numpy(rows) for rows in units(3))
    with pytest.warns(UserWarning, match=r"5 of 5 units did not converge at decay 0.001: .* may be .* too high"):
        sparse_mapping(x, y, decay=1e-3)


@pytest.mark.parametrize("decay", [-0.1, [0.1, float("nan")], float("inf")])
def test_bad_decay(decay):
    x, y = (torch.from_numpy(rows) for rows in units(4))
    with pytest.raises(ValueError, match="finite, non-negative `decay`"):
        sparse_mapping(x, y, decay=decay)


def test_held_out_samples_are_predicted_with_weights_that_never_saw_them():
    x, y = units(8, samples=90)
    y[60:] = np.roll(y[60:], 1, axis=0)  # what was learned does not hold there
    fit, other = (
        pair_moments(torch.from_numpy(x[part]), torch.from_numpy(y[part])) for part in ([*range(60)], slice(60, 90))
    )
    seen = sparse_mapping(fit, decay=[0.0, 0.01])
    found = sparse_mapping(fit, decay=[0.0, 0.01], held_out=other)
    assert torch.equal(found.weights, seen.weights)
    a, b = standardised(x[60:]), standardised(y[60:])
    for loss, weights in zip(found.loss, found.weights, strict=True):
        np.testing.assert_allclose(loss, 0.5 * np.mean((b - a @ weights.numpy()) ** 2), rtol=1e-9)
    assert (found.loss > 2 * seen.loss).all()


def test_ordinary_units_settle_by_coordinate_descent_alone(monkeypatch):
    def refused(*_):
        raise AssertionError("the search for signs was begun")

    monkeypatch.setattr(module, "search_signs", refused)
    x = np.random.default_rng(0).standard_normal((400, 8))
    y = np.tanh(x @ np.random.default_rng(1).standard_normal((8, 5)))
    found = sparse_mapping(torch.from_numpy(x), torch.from_numpy(y), decay=1e-2)
    peer = pytest.importorskip("sklearn.linear_model").Lasso(alpha=1e-2, fit_intercept=False, tol=1e-12, max_iter=10**6)
    np.testing.assert_allclose(found.weights[0], peer.fit(standardised(x), standardised(y)).coef_.T, atol=1e-6)
