"""The fast spectra against NumPy's dense float64 solver, on spectra made to mislead them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_saturation.functional import eigen
from lightning_saturation.functional.eigen import dense_spectra, dense_spectrum, effective_rank_bounds, top_spectrum
from lightning_saturation.functional.krylov import BlockKrylov
from lightning_saturation.functional.ritz import RitzBounds, is_positive
from lightning_saturation.functional.spectrum import effective_rank, intrinsic_dimension


@pytest.fixture(autouse=True)
def _small_problems_count(monkeypatch):
    monkeypatch.setattr(eigen, "DENSE_BELOW", 32)


def with_spectrum(eigenvalues, seed=0):
    d = len(eigenvalues)
    q = np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))[0]
    matrix = (q * np.asarray(eigenvalues, dtype=np.float64)) @ q.T
    return torch.from_numpy((matrix + matrix.T) / 2)


def rotated_dimension(matrix, delta):
    """The integer that NumPy's dense solver and the rule of section 2 give."""
    return intrinsic_dimension(torch.from_numpy(np.linalg.eigvalsh(matrix.numpy()).copy()), delta=delta)


def dimension(spectrum, delta):
    slack = spectrum.total * spectrum.features * np.finfo(np.float64).eps
    sums = spectrum.eigenvalues.clamp(min=0).cumsum(0)
    return int((sums < delta * spectrum.total - slack).sum()) + 1 if spectrum.total > 0 else 0


D = 320
i = np.arange(1, D + 1)
ADVERSARIAL = {
    "power law": i**-2.0,
    "exponential": np.exp(-i / 8),
    "flat": np.ones(D),
    "one spike": np.where(i == 1, 1.0, 1e-9),
    "one spike on a floor": np.where(i == 1, 1.0, 1e-3),
    "rank one": np.where(i == 1, 1.0, 0.0),
    "rank seven, equal": np.where(i <= 7, 1.0, 0.0),
    "rank forty": np.where(i <= 40, 1.0 / i, 0.0),
    "a cluster around the threshold": np.where(i <= 10, 1.0, np.where(i <= 40, 1e-2 * (1 + 1e-6 * i), 1e-5)),
    "a block larger than the space's": np.where(i <= 30, 1.0, 1e-6),
    "equal plateaus": np.repeat(10.0 ** -np.arange(8), D // 8),
    "tiny scale": i**-2.0 * 1e-200,
    "huge scale": i**-2.0 * 1e150,
    "nothing": np.zeros(D),
}


@pytest.mark.parametrize("delta", [0.5, 0.9, 0.99, 0.999, 1.0])
@pytest.mark.parametrize("name", ADVERSARIAL)
def test_the_dimension_is_that_of_the_dense_solver(name, delta):
    matrix = with_spectrum(ADVERSARIAL[name])
    spectrum = top_spectrum(matrix, delta=delta)
    assert dimension(spectrum, delta) == rotated_dimension(matrix, delta)


@pytest.mark.parametrize("nudge", [0.0, 1e-15, -1e-15, 1e-13, -1e-13, 1e-11, -1e-11, 1e-9, -1e-9])
def test_a_threshold_next_to_a_tie_is_decided_as_the_dense_solver_does(nudge):
    eigenvalues = i**-2.0
    delta = float(eigenvalues[:20].sum() / eigenvalues.sum()) + nudge
    matrix = with_spectrum(eigenvalues)
    assert dimension(top_spectrum(matrix, delta=delta), delta) == rotated_dimension(matrix, delta)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    power=st.floats(0.0, 4.0),
    copies=st.sampled_from([1, 2, 20]),
    features=st.integers(33, 200),
    delta=st.sampled_from([0.5, 0.9, 0.99, 0.9999]),
)
def test_any_spectrum_gives_the_dimension_of_the_dense_solver(seed, power, copies, features, delta):
    eigenvalues = np.repeat(np.arange(1, features + 1) ** -power, copies)[:features]
    matrix = with_spectrum(eigenvalues, seed)
    assert dimension(top_spectrum(matrix, delta=delta), delta) == rotated_dimension(matrix, delta)


@pytest.mark.parametrize("power", [2.2, 3.0])
def test_the_fast_way_is_taken_and_accurate(power):
    matrix = with_spectrum(np.arange(1, 601) ** -power)
    spectrum = top_spectrum(matrix, delta=0.99)
    dense = torch.from_numpy(np.linalg.eigvalsh(matrix.numpy())[::-1].copy())
    kept = len(spectrum.eigenvalues)
    assert not spectrum.complete
    error = (spectrum.eigenvalues - dense[:kept]).abs().max()
    assert error <= 1e-6 * dense[kept - 1]
    assert spectrum.total == pytest.approx(float(dense.sum()), rel=1e-12)
    assert spectrum.total**2 / spectrum.squares == pytest.approx(float(dense.sum() ** 2 / dense.square().sum()))


def test_a_direction_hidden_from_the_start_vectors_is_found_missing():
    """The Krylov space never sees a vector orthogonal to its start: the factorisation must refuse its answer."""
    d, block = 200, 16
    start = torch.randn(block, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    hidden = torch.linalg.qr(torch.cat([start, torch.eye(d).double()[:1]]).T).Q[:, -1:]  # orthogonal to the start
    rest = torch.linalg.qr(
        torch.cat([hidden, torch.randn(d, d - 1, generator=torch.Generator().manual_seed(1)).double()], 1)
    ).Q
    eigenvalues = torch.cat([torch.tensor([0.3]), 2.0 ** -torch.arange(d - 1.0)]).double()
    matrix = (rest * eigenvalues) @ rest.T
    matrix = (matrix + matrix.T) / 2
    for delta in (0.5, 0.77, 0.9, 0.99):
        assert dimension(top_spectrum(matrix, delta=delta), delta) == rotated_dimension(matrix, delta)


def test_narrow_and_degenerate_covariances():
    assert top_spectrum(torch.tensor([[2.0]])).eigenvalues.tolist() == [2.0]
    assert dimension(top_spectrum(torch.zeros(1, 1)), 0.99) == 0
    assert len(top_spectrum(torch.zeros(0, 0)).eigenvalues) == 0


def test_half_precision_is_solved_in_double():
    matrix = torch.diag(2.0 ** -torch.arange(256.0).clamp(max=100))
    spectrum = top_spectrum(matrix.bfloat16())
    assert spectrum.eigenvalues.dtype == torch.float64
    assert not spectrum.complete
    assert dimension(spectrum, 0.99) == rotated_dimension(matrix.double(), 0.99)


def test_no_generator_but_its_own_is_drawn_from_and_results_repeat():
    matrix = with_spectrum(ADVERSARIAL["power law"])
    before = torch.get_rng_state()
    first, second = top_spectrum(matrix), top_spectrum(matrix)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first.eigenvalues, second.eigenvalues)


@pytest.mark.parametrize("solve", [top_spectrum, dense_spectrum])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_an_error(solve, value):
    matrix = torch.eye(3)
    matrix[0, 1] = value
    with pytest.raises(ValueError, match="finite `covariance`"):
        solve(matrix)


def test_arguments_are_checked():
    with pytest.raises(ValueError, match=r"square `covariance`, got shape \(2, 3\)"):
        eigen._checked(torch.ones(2, 3))  # the shape annotation of the public function comes first, in tests
    with pytest.raises(ValueError, match="`delta`"):
        top_spectrum(torch.eye(2), delta=0.0)


@pytest.mark.parametrize("name", ["power law", "exponential", "one spike on a floor", "rank forty", "equal plateaus"])
def test_the_effective_rank_lies_within_its_bounds(name):
    matrix = with_spectrum(ADVERSARIAL[name])
    spectrum = top_spectrum(matrix)
    exact = float(effective_rank(torch.from_numpy(np.linalg.eigvalsh(matrix.numpy()).copy())))
    low, high = effective_rank_bounds(spectrum)
    assert low * (1 - 1e-6) <= exact <= high * (1 + 1e-6)
    assert high / low < 1.1
    low, high = effective_rank_bounds(dense_spectrum(matrix))
    assert low == high == pytest.approx(exact)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**16), known=st.integers(1, 10), noise=st.sampled_from([0.0, 1e-6, 1e-2]), j=st.integers(0, 10)
)
def test_sums_of_eigenvalues_stay_under_their_upper_bound(seed, known, noise, j):
    j = min(j, known)
    rng = np.random.default_rng(seed)
    eigenvalues = np.sort(rng.exponential(size=24) ** 3)[::-1]
    matrix = with_spectrum(eigenvalues, seed).numpy()
    basis = np.linalg.qr(np.linalg.eigh(matrix)[1][:, ::-1][:, :known] + noise * rng.standard_normal((24, known)))[0]
    projected = basis.T @ matrix @ basis
    residual = matrix @ basis - basis @ projected
    outside = np.eye(24) - basis @ basis.T
    ceiling = np.linalg.eigvalsh(outside @ matrix @ outside)[-1]
    values = torch.from_numpy(np.linalg.eigvalsh(projected)[::-1].copy())
    bounds = RitzBounds(values, float((residual**2).sum()), eigenvalues.sum(), 0.0, 1e-12)
    assert bounds.upper(j, ceiling) >= eigenvalues[:j].sum() - 1e-10
    assert float(bounds.sums[j]) <= eigenvalues[:j].sum() + 1e-10


@pytest.mark.parametrize("d", [1, 5, 255, 256, 300])
def test_positive_definiteness_is_decided_as_by_the_eigenvalues(d):
    matrix = with_spectrum(np.linspace(0.1, 2.0, d))
    lowest = float(torch.linalg.eigvalsh(matrix)[0])
    assert is_positive(matrix - (lowest - 1e-8) * torch.eye(d).double())
    assert not is_positive(matrix - (lowest + 1e-8) * torch.eye(d).double())


def test_the_basis_stays_orthonormal_when_the_space_is_exhausted():
    space = BlockKrylov(with_spectrum(ADVERSARIAL["rank seven, equal"]), limit=100, block=16)
    while space.grow():
        pass
    gram = space._basis[: space.size] @ space._basis[: space.size].T
    assert space.size == 96
    assert (gram - torch.eye(96).double()).abs().max() < 1e-12


def test_several_solved_together_are_as_each_alone():
    matrices = [with_spectrum(ADVERSARIAL[name]) for name in ("power law", "flat")] + [with_spectrum(np.ones(7))]
    for together, matrix in zip(dense_spectra(matrices), matrices, strict=True):
        alone = dense_spectrum(matrix)
        torch.testing.assert_close(together.eigenvalues, alone.eigenvalues, rtol=1e-9, atol=1e-12)
        assert together[1:] == alone[1:]
    assert dense_spectra([]) == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["power law", "flat", "rank forty"])
def test_on_a_gpu_the_dimension_is_that_of_the_dense_solver(name):
    matrix = with_spectrum(ADVERSARIAL[name])
    assert dimension(top_spectrum(matrix.cuda()), 0.99) == rotated_dimension(matrix, 0.99)
