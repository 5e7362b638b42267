"""Linear CKA against Gram matrices, Procrustes against SciPy, and what each is invariant to."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes

from lightning_saturation.similarity.kernel_alignment import linear_cka, procrustes, unbiased_hsic
from lightning_saturation.similarity.pairs import pair_moments
from tests.similarity.test_cca import invertible, orthogonal, representations

LAWS = settings(max_examples=20, deadline=None)
SEEDS = st.integers(0, 10**6)


def hsic_of_gram_matrices(k, left):
    """The unbiased estimate written out in matrices of samples × samples."""
    n = len(k)
    k, left = k - np.diag(np.diag(k)), left - np.diag(np.diag(left))
    one = np.ones(n)
    middle = (one @ k @ one) * (one @ left @ one) / ((n - 1) * (n - 2))
    return (np.trace(k @ left) + middle - 2 * (one @ k @ left @ one) / (n - 2)) / (n * (n - 3))


@LAWS
@given(seed=SEEDS, offset=st.sampled_from([0.0, 10.0]))
def test_debiased_is_the_estimate_on_gram_matrices(seed, offset):
    x, y = representations(seed, samples=40)
    x = x + offset
    k, left = (rows.numpy() @ rows.numpy().T for rows in (x, y))
    expected = hsic_of_gram_matrices(k, left) / np.sqrt(hsic_of_gram_matrices(k, k) * hsic_of_gram_matrices(left, left))
    np.testing.assert_allclose(linear_cka(x, y, debiased=True), expected, rtol=1e-7)


@LAWS
@given(seed=SEEDS)
def test_plain_is_the_alignment_of_centred_gram_matrices(seed):
    x, y = representations(seed, samples=40)
    k, left = ((rows - rows.mean(0)).numpy() for rows in (x, y))
    k, left = k @ k.T, left @ left.T
    np.testing.assert_allclose(linear_cka(x, y), (k * left).sum() / np.sqrt((k * k).sum() * (left * left).sum()))


@LAWS
@given(seed=SEEDS, debiased=st.booleans())
def test_cka_keeps_under_rotation_scale_and_offset_and_is_symmetric(seed, debiased):
    x, y = representations(seed)
    mapped = linear_cka(7 * y @ orthogonal(seed, 4) + 9, x @ orthogonal(seed, 6), debiased=debiased)
    torch.testing.assert_close(mapped, linear_cka(x, y, debiased=debiased), rtol=0, atol=1e-9)
    torch.testing.assert_close(linear_cka(x, x, debiased=debiased).item(), 1.0, rtol=0, atol=1e-12)


@pytest.mark.parametrize("measure", [linear_cka, lambda x, y: procrustes(x, y, normalize=True)])
def test_an_affine_map_changes_both(measure):
    x, y = representations(0)
    assert abs(float(measure(x @ invertible(0, 6), y) - measure(x, y))) > 1e-3


def test_debiased_is_near_zero_for_unrelated_data_where_plain_is_not():
    rng = np.random.default_rng(0)
    pairs = [[torch.from_numpy(rng.standard_normal((50, 100))) for _ in "xy"] for _ in range(20)]
    assert np.mean([float(linear_cka(x, y)) for x, y in pairs]) > 0.5
    assert abs(np.mean([float(linear_cka(x, y, debiased=True)) for x, y in pairs])) < 0.02


def test_debiased_keeps_its_digits_at_an_offset():
    x, y = representations(1)
    torch.testing.assert_close(
        linear_cka(x + 1e5, y - 1e5, debiased=True), linear_cka(x, y, debiased=True), rtol=0, atol=1e-8
    )


@pytest.mark.parametrize("debiased", [False, True])
@pytest.mark.parametrize(("first", "second"), [(1e-45, 1e-45), (1e-60, 1e30), (1e60, 1e60)])
def test_scales_far_from_one_change_nothing(first, second, debiased):
    x, y = representations(3)
    found = linear_cka(x * first, y * second, debiased=debiased)
    torch.testing.assert_close(found, linear_cka(x, y, debiased=debiased), rtol=1e-9, atol=0)


@pytest.mark.parametrize("scale", [1e-80, 1e80])
def test_plain_alignment_and_procrustes_at_the_ends_of_the_range(scale):
    x, y = representations(3)
    torch.testing.assert_close(linear_cka(x * scale, y / scale), linear_cka(x, y), rtol=1e-9, atol=0)
    distance = procrustes(x * scale, y * scale, normalize=True)
    torch.testing.assert_close(distance, procrustes(x, y, normalize=True), rtol=1e-9, atol=0)


def test_missing_values():
    x, y = representations(2, samples=30)
    constant = torch.ones(30, 3)
    assert linear_cka(constant, y).isnan()
    assert linear_cka(constant, y, debiased=True).isnan()
    assert procrustes(constant, y, normalize=True).isnan()
    assert linear_cka(x[:3], y[:3], debiased=True).isnan()
    for scale in (1e80, 1e150):
        assert linear_cka(x * scale, y, debiased=True).isnan()
        assert linear_cka(x * scale, y * scale, debiased=True).isnan()
    with pytest.raises(ValueError, match="with `lengths`"):
        linear_cka(pair_moments(x, y)._replace(lengths=None), debiased=True)


@LAWS
@given(seed=SEEDS, scale=st.sampled_from([0.1, 1.0, 30.0]))
def test_procrustes_is_what_scipys_best_rotation_leaves(seed, scale):
    x, y = representations(seed, x_features=5, y_features=5)
    x = scale * x
    a, b = ((rows - rows.mean(0)).numpy() for rows in (x, y))
    rotation, _ = orthogonal_procrustes(b, a)
    np.testing.assert_allclose(procrustes(x, y), np.square(a - b @ rotation).sum(), rtol=1e-8)
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    np.testing.assert_allclose(procrustes(x, y, normalize=True), np.square(a - b @ rotation).sum(), rtol=1e-8)


@LAWS
@given(seed=SEEDS)
def test_procrustes_keeps_under_rotation_and_offset_but_not_scale(seed):
    x, y = representations(seed)
    mapped = procrustes(x @ orthogonal(seed, 6) + 3, y @ orthogonal(seed, 4) - 3)
    torch.testing.assert_close(mapped, procrustes(x, y))
    assert abs(float(procrustes(2 * x, y) / procrustes(x, y)) - 1) > 1e-2
    torch.testing.assert_close(procrustes(2 * x, y, normalize=True), procrustes(x, y, normalize=True))
    assert float(procrustes(x, x @ orthogonal(seed, 6))) < 1e-9 * float(x.square().sum())


@pytest.mark.parametrize("samples", [4, 5, 40])
def test_the_estimate_itself_is_that_of_gram_matrices_of_trace_one(samples):
    """Not only a ratio of two: four rows are the fewest, and enough."""
    x, y = representations(0, samples=samples)
    k, left = (rows.numpy() @ rows.numpy().T for rows in (x - x.mean(0), y - y.mean(0)))
    k, left = k / np.trace(k), left / np.trace(left)
    products, lengths = (k * left).sum(), (np.diag(k) * np.diag(left)).sum()
    found = unbiased_hsic(torch.tensor(products), torch.tensor(lengths), torch.tensor(samples))
    np.testing.assert_allclose(found, hsic_of_gram_matrices(k, left), rtol=1e-10)
    assert linear_cka(x, x, debiased=True).item() == pytest.approx(1.0, abs=1e-9)
