"""Unit correlations and matchings against NumPy and brute force."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_saturation.covariance.moments import Moments, moments
from lightning_saturation.matching.units import match_units, unit_correlation
from lightning_saturation.similarity.pairs import pair_moments

LAWS = settings(max_examples=20, deadline=None)


def rows(seed, units, samples=50):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((samples, units)))


def test_correlations_are_numpys_from_rows_and_from_moments():
    x, y = rows(0, 4) * 3 + 1e3, rows(1, 3)
    y[:, 0] -= x[:, 2]
    expected = np.corrcoef(x.T, y.T)
    np.testing.assert_allclose(unit_correlation(x, y), expected[:4, 4:], atol=1e-10)
    np.testing.assert_allclose(unit_correlation(x), expected[:4, :4], atol=1e-10)
    torch.testing.assert_close(unit_correlation(pair_moments(x, y)), unit_correlation(x, y))
    torch.testing.assert_close(unit_correlation(moments(x)), unit_correlation(x))


def test_constant_units_correlate_with_nothing():
    x = rows(0, 3)
    x[:, 1] = 7.0
    assert unit_correlation(x)[1].tolist() == [0.0, 0.0, 0.0]
    assert unit_correlation(rows(1, 2), x)[:, 1].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("scale", [1e-80, 1e-120, 1e80])
def test_scales_far_from_one_change_nothing(scale):
    x, y = rows(0, 4), rows(1, 3)
    torch.testing.assert_close(unit_correlation(x * scale, y * scale), unit_correlation(x, y))
    torch.testing.assert_close(unit_correlation(x * scale), unit_correlation(x))


@LAWS
@given(seed=st.integers(0, 10**6), order=st.permutations(range(6)))
def test_a_permuted_layer_is_matched_back(seed, order):
    x = rows(seed, 6)
    for method in ("bipartite", "semi"):
        found = match_units(unit_correlation(x, 3 * x[:, order] + 1), method=method)
        assert [order[j] for j in found.y_partner] == list(range(6))
        assert found.x_partner.tolist() == list(order)
        torch.testing.assert_close(found.y_correlation, torch.ones(6, dtype=torch.float64))


@LAWS
@given(seed=st.integers(0, 10**6), shape=st.sampled_from([(4, 4), (3, 5), (5, 3)]))
def test_bipartite_is_the_best_of_all_assignments(seed, shape):
    scores = np.random.default_rng(seed).uniform(-1, 1, shape)
    found = match_units(torch.from_numpy(scores))
    wide = scores if shape[0] <= shape[1] else scores.T
    best = max(
        sum(wide[i, j] for i, j in enumerate(chosen))
        for chosen in itertools.permutations(range(wide.shape[1]), wide.shape[0])
    )
    assert float(found.y_correlation.nansum()) == pytest.approx(best)
    assert float(found.x_correlation.nansum()) == pytest.approx(best)
    for i, j in enumerate(found.y_partner.tolist()):
        assert j == -1 or found.x_partner[j] == i
    assert (found.y_partner == -1).sum() == max(shape[0] - shape[1], 0)
    assert found.y_correlation.isnan().tolist() == (found.y_partner == -1).tolist()


@LAWS
@given(seed=st.integers(0, 10**6))
def test_semi_matching_takes_both_maxima(seed):
    scores = np.random.default_rng(seed).uniform(-1, 1, (4, 6))
    found = match_units(torch.from_numpy(scores), method="semi")
    assert found.y_partner.tolist() == scores.argmax(1).tolist()
    assert found.x_partner.tolist() == scores.argmax(0).tolist()
    np.testing.assert_array_equal(found.x_correlation, scores.max(0))


@pytest.mark.parametrize("method", ["bipartite", "semi"])
def test_within_a_network_no_unit_is_its_own_partner(method):
    x = rows(2, 5)
    found = match_units(unit_correlation(x), method=method, exclude_self=True)
    assert (found.y_partner != torch.arange(5)).all()
    assert (match_units(unit_correlation(x), method=method).y_partner == torch.arange(5)).all()
    assert (found.y_correlation.abs() <= 1).all()


def test_the_diagonal_costs_more_than_any_assignment_without_it():
    """With a small penalty the best sum would take two of the diagonal rather than one bad pair."""
    correlation = -torch.ones(3, 3, dtype=torch.float64)
    correlation[0, 0] = correlation[1, 1] = correlation[2, 2] = 1.0
    correlation[0, 1] = correlation[1, 0] = 1.0  # which leaves the third unit alone with itself
    found = match_units(correlation, exclude_self=True)
    assert (found.y_partner != torch.arange(3)).all()


def test_rounding_takes_no_correlation_beyond_one():
    x = rows(0, 1).repeat(1, 3) * torch.tensor([1.0, 3.0, 1e-3], dtype=torch.float64)
    correlation = unit_correlation(x)
    assert float(correlation.max()) <= 1
    scatter = torch.tensor([[1.0, 1.0 + 1e-15], [1.0 + 1e-15, 1.0]], dtype=torch.float64)
    assert float(unit_correlation(Moments(torch.tensor(3), torch.zeros(2).double(), scatter)).max()) == 1.0


@pytest.mark.parametrize("method", ["bipartite", "semi"])
def test_partners_are_those_of_one_correlation_and_their_values_those_of_the_other(method):
    chosen = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.0, 0.3]])
    seen = torch.tensor([[0.5, -0.1], [0.4, 0.3], [0.1, -0.2]], dtype=torch.float64)
    alone, found = match_units(chosen, method=method), match_units(chosen, method=method, held_out=seen)
    assert torch.equal(found.y_partner, alone.y_partner)
    assert torch.equal(found.x_partner, alone.x_partner)
    for unit, partner in enumerate(found.y_partner.tolist()):
        expected = seen[unit, partner] if partner >= 0 else torch.tensor(torch.nan, dtype=torch.float64)
        torch.testing.assert_close(found.y_correlation[unit], expected, equal_nan=True)
    assert found.x_correlation.tolist() == [float(seen[unit, of]) for of, unit in enumerate(found.x_partner.tolist())]
    with pytest.raises(ValueError, match=r"`held_out` of the shape of `correlation`, \(3, 2\), got \(2, 3\)"):
        match_units.__wrapped__(chosen, method=method, held_out=seen.T)


def test_bad_arguments():
    with pytest.raises(ValueError, match="`method` 'bipartite' or 'semi', got 'greedy'"):
        match_units.__wrapped__(torch.eye(2), method="greedy")
    with pytest.raises(ValueError, match="without NaN"):
        match_units(torch.full((2, 2), torch.nan))
    with pytest.raises(ValueError, match=r"square `correlation` with `exclude_self`, got \(2, 3\)"):
        match_units(torch.zeros(2, 3), exclude_self=True)
    with pytest.raises(ValueError, match="rows of the same samples, got 50 and 20"):
        unit_correlation(rows(0, 2), rows(0, 2, samples=20))
    with pytest.raises(TypeError, match="are `PairMoments`"):
        unit_correlation(moments(rows(0, 2)), rows(0, 2))
