"""Numbers read off a spectrum: the tie rule, invariances, and agreement with NumPy and SciPy."""

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lightning_saturation.covariance.spectrum import covariance_eigenvalues, eigenvalues_together
from lightning_saturation.functional import (
    effective_rank,
    intrinsic_dimension,
    participation_ratio,
    saturation,
    stable_rank,
)

LAWS = settings(max_examples=40, deadline=None)
SPECTRA = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=12).map(lambda v: torch.tensor(v, dtype=torch.float64))
DELTAS = st.floats(0.01, 1.0)
ALL = (intrinsic_dimension, saturation, effective_rank, participation_ratio, stable_rank)


@pytest.mark.parametrize(
    ("eigenvalues", "delta", "expected"),
    [
        ([0.5, 0.49, 0.005, 0.005], 0.99, 2),  # exactly reached counts as reached
        ([0.98, 0.015, 0.005, 0.0], 0.99, 2),
        ([1.0, 1.0, 1.0, 1.0], 0.99, 4),
        ([1.0, 0.0, 0.0, 0.0], 0.99, 1),  # delve says 0
        ([0.0, 0.0, 0.0], 0.99, 0),
        ([-1e-18, -1e-20], 0.5, 0),  # rounding residue is no variance
        ([3.0], 0.01, 1),
        ([5.0, 3.0, 1.0, 0.0], 1.0, 3),
        ([0.1, 0.7, 0.2], 0.85, 2),  # order does not matter
        ([], 0.99, 0),
    ],
)
def test_the_tie_rule(eigenvalues, delta, expected):
    spectrum = torch.tensor(eigenvalues, dtype=torch.float64)
    assert intrinsic_dimension(spectrum, delta=delta) == expected
    assert float(saturation(spectrum, delta=delta)) == expected / max(len(eigenvalues), 1)


@pytest.mark.parametrize("n", [2, 3, 7, 10, 49, 100, 1000])
@pytest.mark.parametrize("value", [1.0, 0.1, 1e-7, 3e11])
def test_a_flat_spectrum_needs_exactly_its_share(n, value):
    spectrum = torch.full((n,), value, dtype=torch.float64)
    for k in {1, n // 3 + 1, n // 2, n - 1, n}:
        assert intrinsic_dimension(spectrum, delta=k / n) == k


@LAWS
@given(SPECTRA, DELTAS)
def test_the_dimension_is_the_smallest_that_reaches_delta(spectrum, delta):
    ordered = np.sort(spectrum.numpy())[::-1]
    reached = np.array([ordered[:k].sum() for k in range(1, len(ordered) + 1)]) / ordered.sum()
    assume(np.abs(reached - delta).min() > 1e-12 or delta == 1.0)
    k = intrinsic_dimension(spectrum, delta=delta)
    assert reached[k - 1] >= delta - 1e-12
    assert k == 1 or reached[k - 2] < delta


@LAWS
@given(SPECTRA, st.floats(1e-3, 1e3), st.randoms(use_true_random=False))
def test_scale_and_order_change_nothing(spectrum, scale, random):
    order = random.sample(range(len(spectrum)), len(spectrum))
    for statistic in (effective_rank, participation_ratio, stable_rank):
        assert float(statistic(spectrum[order] * scale)) == pytest.approx(float(statistic(spectrum)), rel=1e-9)
    # A power of two scales without rounding, so that even ties fall alike.
    assert intrinsic_dimension(spectrum[order] * 2.0**30, delta=0.9) == intrinsic_dimension(spectrum, delta=0.9)


@LAWS
@given(SPECTRA, DELTAS, DELTAS)
def test_more_delta_needs_no_fewer_dimensions(spectrum, one, other):
    low, high = sorted((one, other))
    assert intrinsic_dimension(spectrum, delta=low) <= intrinsic_dimension(spectrum, delta=high)
    for continuous in (False, True):
        values = [float(saturation(spectrum, delta=d, continuous=continuous)) for d in (low, high)]
        assert values[0] <= values[1] + 1e-12


@LAWS
@given(SPECTRA, DELTAS)
def test_the_continuous_value_lies_within_the_last_dimension_that_counts(spectrum, delta):
    k, d = intrinsic_dimension(spectrum, delta=delta), len(spectrum)
    value = float(saturation(spectrum, delta=delta, continuous=True)) * d
    assert k - 1 - 1e-9 <= value <= k + 1e-9
    if delta < 1:  # Σ of the first k − 1 and of that part of the k-th is exactly what delta asks for
        ordered = spectrum.sort(descending=True).values
        held = float(ordered[: k - 1].sum() + (value - (k - 1)) * ordered[k - 1])
        assert held == pytest.approx(delta * float(ordered.sum()), rel=1e-9)


def test_the_continuous_value_moves_smoothly_where_the_count_jumps():
    below, above = (torch.tensor([0.99 + shift, 0.01 - shift], dtype=torch.float64) for shift in (-1e-9, 1e-9))
    assert saturation(below) == 1.0
    assert saturation(above) == 0.5
    smooth = [float(saturation(spectrum, continuous=True)) for spectrum in (below, above)]
    assert smooth[0] == pytest.approx(smooth[1], abs=1e-6)


@LAWS
@given(SPECTRA)
def test_ranks_are_those_of_their_formulas(spectrum):
    values = spectrum.numpy()
    share = values / values.sum()
    assert float(effective_rank(spectrum)) == pytest.approx(np.exp(scipy.stats.entropy(share)), rel=1e-9)
    assert float(participation_ratio(spectrum)) == pytest.approx(1 / (share**2).sum(), rel=1e-9)
    assert float(stable_rank(spectrum)) == pytest.approx(values.sum() / values.max(), rel=1e-12)
    # Rényi entropies of order 1, 2 and ∞, which can only fall.
    ranks = [float(statistic(spectrum)) for statistic in (effective_rank, participation_ratio, stable_rank)]
    assert len(values) + 1e-6 >= ranks[0]
    assert ranks[0] * (1 + 1e-9) >= ranks[1] >= ranks[2] * (1 - 1e-9)
    assert ranks[2] >= 1 - 1e-9


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e160, 1e300])
def test_extreme_scales_neither_overflow_nor_vanish(scale):
    spectrum = torch.tensor([2.0, 1.0, 1.0], dtype=torch.float64) * scale
    assert float(participation_ratio(spectrum)) == pytest.approx(16 / 6)
    assert float(stable_rank(spectrum)) == pytest.approx(2.0)
    assert float(effective_rank(spectrum)) == pytest.approx(np.exp(1.5 * np.log(2)))
    assert intrinsic_dimension(spectrum, delta=0.75) == 2


@pytest.mark.parametrize("statistic", ALL)
def test_without_variance_everything_is_zero(statistic):
    for spectrum in (torch.zeros(3), torch.zeros(0), torch.zeros(3, dtype=torch.float64)):
        assert float(statistic(spectrum)) == 0.0


@pytest.mark.parametrize("statistic", [saturation, effective_rank, participation_ratio, stable_rank])
def test_results_are_float64_scalars(statistic):
    value = statistic(torch.tensor([2.0, 1.0]))
    assert value.dtype == torch.float64
    assert value.shape == ()


@pytest.mark.parametrize("delta", [0.0, -0.1, 1.0001, float("nan"), float("inf")])
@pytest.mark.parametrize("function", [intrinsic_dimension, saturation])
def test_a_delta_out_of_range_is_an_error(function, delta):
    with pytest.raises(ValueError, match=rf"Expected `delta` in \(0, 1\], got {delta}"):
        function(torch.ones(3), delta=delta)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_among_the_eigenvalues_is_an_error_not_a_number(bad):
    with pytest.raises(ValueError, match="Expected finite `eigenvalues`, got NaN or infinity"):
        intrinsic_dimension(torch.tensor([1.0, bad]))


@LAWS
@given(st.integers(1, 8), st.integers(0, 99))
def test_eigenvalues_are_numpys_and_do_not_turn(features, seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((features, features))
    sigma = x @ x.T
    turn = np.linalg.qr(rng.standard_normal((features, features)))[0]
    expected = np.linalg.eigvalsh(sigma)[::-1]
    for matrix in (sigma, turn @ sigma @ turn.T):
        ours = covariance_eigenvalues(torch.from_numpy(np.ascontiguousarray(matrix)))
        np.testing.assert_allclose(ours, expected, atol=1e-12 * expected[0])
        assert (ours >= 0).all()


def test_eigenvalues_of_half_precision_input_are_float64():
    assert covariance_eigenvalues(torch.eye(2)).dtype == torch.float64


def test_a_covariance_with_nan_is_an_error():
    # LAPACK turns it into plausible numbers.
    with pytest.raises(ValueError, match="Expected a finite `covariance`, got NaN"):
        covariance_eigenvalues(torch.tensor([[1.0, torch.nan], [torch.nan, 1.0]]))


def test_a_solver_that_fails_is_tried_once_more(monkeypatch):
    solve, tries = torch.linalg.eigvalsh, []

    def moody(matrix):
        tries.append(matrix.device)
        if len(tries) == 1:
            raise torch.linalg.LinAlgError("did not converge")
        return solve(matrix)

    monkeypatch.setattr(torch.linalg, "eigvalsh", moody)
    assert covariance_eigenvalues(torch.eye(2)).tolist() == [1.0, 1.0]
    assert len(tries) == 2


def test_several_solved_together_are_as_each_alone():
    rows = [torch.randn(20, width, generator=torch.Generator().manual_seed(width)) for width in (3, 7, 3, 1)]
    covariances = [part.T @ part for part in rows]
    together = eigenvalues_together(covariances)
    for eigenvalues, covariance in zip(together, covariances, strict=True):
        torch.testing.assert_close(eigenvalues, covariance_eigenvalues(covariance), rtol=1e-9, atol=1e-12)
    assert eigenvalues_together([]) == []
    covariances[1][0, 1] = torch.nan
    with pytest.raises(ValueError, match="finite `covariance`"):
        eigenvalues_together(covariances)
