"""CCA, SVCCA, PWCCA and class similarity: laws, an independent route by SVD of the rows, and bad input."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_saturation.similarity.cca import cca, class_similarity, kept_directions, pwcca, svcca, weigh, whiten
from lightning_saturation.similarity.metrics import PWCCA
from lightning_saturation.similarity.pairs import PairMoments, pair_moments

LAWS = settings(max_examples=20, deadline=None)
SEEDS = st.integers(0, 10**6)


def representations(seed, samples=200, x_features=6, y_features=4, shared=2):
    """Rows that share some directions, at different scales, with noise."""
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((samples, shared))
    x = common @ rng.standard_normal((shared, x_features)) + 0.5 * rng.standard_normal((samples, x_features))
    y = common @ rng.standard_normal((shared, y_features)) + 0.5 * rng.standard_normal((samples, y_features))
    return torch.from_numpy(x * np.linspace(1, 3, x_features)), torch.from_numpy(y)


def invertible(seed, features):
    rng = np.random.default_rng(seed + 1)
    left, _ = np.linalg.qr(rng.standard_normal((features, features)))
    right, _ = np.linalg.qr(rng.standard_normal((features, features)))
    return torch.from_numpy(left * np.geomspace(0.2, 5, features) @ right)


def orthogonal(seed, features):
    return torch.from_numpy(np.linalg.qr(np.random.default_rng(seed + 2).standard_normal((features, features)))[0])


def correlations_of_rows(x, y, delta=1.0):
    """The textbook route on the rows themselves: SVD, truncation on variance, SVD of the product of the bases."""
    bases = []
    for rows in (x.numpy(), y.numpy()):
        u, s, _ = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
        share = np.cumsum(s**2) / np.sum(s**2)
        bases.append(u[:, : int(np.sum(share < delta - 1e-12)) + 1])
    return np.linalg.svd(bases[0].T @ bases[1], compute_uv=False)


@LAWS
@given(seed=SEEDS)
def test_cca_with_an_affine_map_of_itself_is_one(seed):
    x, _ = representations(seed)
    found = cca(x, x @ invertible(seed, 6) + 7)
    torch.testing.assert_close(found.correlations, torch.ones(6, dtype=torch.float64), rtol=0, atol=1e-9)
    assert (found.x_kept, found.y_kept) == (6, 6)


@LAWS
@given(seed=SEEDS)
def test_cca_is_invariant_to_affine_maps_of_either_side(seed):
    x, y = representations(seed)
    mapped = cca(x @ invertible(seed, 6) - 3, 5 * y @ invertible(seed, 4) + 100)
    torch.testing.assert_close(mapped.correlations, cca(x, y).correlations, rtol=0, atol=1e-9)


@LAWS
@given(seed=SEEDS, delta=st.sampled_from([0.7, 0.9, 0.99, 1.0]))
def test_moments_agree_with_svd_of_the_rows(seed, delta):
    x, y = representations(seed)
    found = cca(x, y, delta=delta)
    np.testing.assert_allclose(found.correlations, correlations_of_rows(x, y, delta), atol=1e-9)
    torch.testing.assert_close(svcca(pair_moments(x, y), delta=delta), found.correlations.mean(), rtol=0, atol=1e-12)


@LAWS
@given(seed=SEEDS)
def test_directions_have_the_correlations_and_no_others(seed):
    x, y = representations(seed)
    found = cca(x, y)
    scores = [(rows - rows.mean(0)) @ d for rows, d in ((x, found.x_directions), (y, found.y_directions))]
    one = torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(scores[0].T @ scores[0], one, rtol=0, atol=1e-9)
    torch.testing.assert_close(scores[1].T @ scores[1], one, rtol=0, atol=1e-9)
    torch.testing.assert_close(scores[0].T @ scores[1], found.correlations.diag(), rtol=0, atol=1e-9)


@LAWS
@given(seed=SEEDS)
def test_svcca_keeps_under_rotation_scale_and_offset(seed):
    x, y = representations(seed)
    mapped = svcca(3 * x @ orthogonal(seed, 6) + 50, y @ orthogonal(seed, 4))
    torch.testing.assert_close(mapped, svcca(x, y), rtol=0, atol=1e-9)


@pytest.mark.parametrize("scale", [1e-9, 9e-7, 1e-5, 1e9])
def test_the_scale_of_one_feature_does_not_matter(scale):
    """A cutoff before scaling would drop a small feature for the size of its unit."""
    x, y = representations(0)
    scales = torch.tensor([1.0, 1, 1, 1, 1, scale], dtype=torch.float64)
    found = cca(x * scales, y * scales[2:])
    assert (found.x_kept, found.y_kept) == (6, 4)
    torch.testing.assert_close(found.correlations, cca(x, y).correlations, rtol=0, atol=1e-7)
    torch.testing.assert_close(class_similarity(x * scales, y), class_similarity(x, y), rtol=0, atol=1e-7)


def test_what_float64_leaves_of_a_constant_is_no_feature():
    x, y = representations(0)
    constant = torch.full((200, 1), 1000.1, dtype=torch.float64)
    with_constant = torch.cat([x, constant], dim=1)
    pair = pair_moments(with_constant, y)
    residue = pair.xx.clone()
    residue[6, 6] = 200 * 1e-26  # as where means of batches round differently
    for scatter in (pair.xx, residue):
        assert cca(pair._replace(xx=scatter)).x_kept == 6


def test_residue_is_what_rounding_of_float32_leaves():
    eigenvalues = torch.tensor([1.0, 2e-12, 5e-13, 1e-16], dtype=torch.float64)
    assert kept_directions(eigenvalues, delta=None) == 2
    assert kept_directions(eigenvalues * 1e-60, delta=None) == 2
    assert kept_directions(eigenvalues, delta=1.0) == 2


def test_svcca_changes_under_an_affine_map_that_changes_what_is_kept():
    x, y = representations(0)
    scaled = x * torch.tensor([100.0, 1, 1, 1, 1, 1])
    assert abs(float(svcca(scaled, y)) - float(svcca(x, y))) > 0.05
    torch.testing.assert_close(svcca(scaled, y, delta=1.0), svcca(x, y, delta=1.0), rtol=0, atol=1e-9)


def test_svcca_truncates_on_variance_not_on_singular_values():
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.standard_normal((500, 3)) * [10.0, 1.0, 0.5])
    # Shares of variance .9877, .0099, .0025; of singular values .87, .087, .043.
    assert cca(x, x, delta=0.98).x_kept == 1
    assert cca(x, x, delta=0.99).x_kept == 2


@LAWS
@given(seed=SEEDS)
def test_pwcca_weights_are_projections_of_the_rows(seed):
    x, y = representations(seed)
    found, sides = cca(x, y), pwcca(x, y)
    for rows, directions, value in ((x, found.x_directions, sides.x), (y, found.y_directions, sides.y)):
        centred = rows - rows.mean(0)
        weights = ((centred @ directions).T @ centred).abs().sum(1)
        torch.testing.assert_close(value, (weights * found.correlations).sum() / weights.sum())
    torch.testing.assert_close(sides.mean, (sides.x + sides.y) / 2)
    torch.testing.assert_close(pwcca(y, x).x, sides.y)


def test_pwcca_sides_differ_and_depend_on_scale():
    x, y = representations(3)
    sides = pwcca(x, y)
    assert abs(float(sides.x - sides.y)) > 1e-3
    assert abs(float(pwcca(x * torch.tensor([30.0, 1, 1, 1, 1, 1]), y).x - sides.x)) > 1e-3


def skip_connection(seed=0, samples=60):
    """A layer and the one behind it, which passes half of the units on: their correlations tie at one."""
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.standard_normal((samples, 40)) * np.geomspace(1, 30, 40))
    mixed = torch.tanh(x @ torch.from_numpy(rng.standard_normal((40, 15)) / 30))
    return x, torch.cat([x[:, :20], mixed], dim=1) @ invertible(seed, 35)


@pytest.mark.filterwarnings("ignore:60 samples are too few")
def test_pwcca_does_not_depend_on_the_basis_of_tied_directions():
    pair = pair_moments(*skip_connection())
    found = cca(pair)
    tied = int((found.correlations > 1 - 1e-9).sum())
    assert tied >= 20
    values = [weigh(pair, found)]
    for seed in range(5):
        turn = torch.eye(len(found.correlations), dtype=torch.float64)
        turn[:tied, :tied] = orthogonal(seed, tied)
        turned = found._replace(x_directions=found.x_directions @ turn, y_directions=found.y_directions @ turn)
        values.append(weigh(pair, turned))
    for value in values[1:]:
        torch.testing.assert_close(torch.stack(value), torch.stack(values[0]), rtol=0, atol=1e-9)
    # It is the paper's weight, on average over all bases of the subspace.
    weights = []
    for seed in range(400):
        turn = torch.eye(len(found.correlations), dtype=torch.float64)
        turn[:tied, :tied] = orthogonal(seed, tied)
        weights.append((pair.xx @ found.x_directions @ turn).abs().sum(0))
    weight = torch.stack(weights).mean(0)
    assert float((weight * found.correlations).sum() / weight.sum()) == pytest.approx(float(values[0].x), abs=1e-3)


@pytest.mark.filterwarnings("ignore:60 samples are too few")
def test_pwcca_does_not_depend_on_the_batches():
    x, y = skip_connection()
    values = []
    for size in (1, 4, 7, 16, 31, 60):
        metric = PWCCA()
        for rows in zip(x.split(size), y.split(size), strict=True):
            metric.update(*rows)
        values.append(float(metric.compute()))
    assert max(values) - min(values) < 1e-6


@LAWS
@given(seed=SEEDS)
def test_class_similarity_is_cca_with_one_logit_at_a_time(seed):
    x, y = representations(seed)
    one_by_one = torch.cat([cca(x, y[:, [c]]).correlations for c in range(4)])
    torch.testing.assert_close(class_similarity(x, y), one_by_one, rtol=0, atol=1e-9)


def test_class_similarity_is_the_multiple_correlation():
    x, y = representations(4)
    design = np.c_[np.ones(200), x.numpy()]
    fitted = design @ np.linalg.lstsq(design, y.numpy(), rcond=None)[0]
    expected = [np.corrcoef(fitted[:, c], y[:, c])[0, 1] for c in range(4)]
    np.testing.assert_allclose(class_similarity(x, y), expected, atol=1e-9)


def test_class_similarity_of_a_constant_logit_is_missing():
    x, y = representations(5)
    y[:, 1] = 4.0
    assert class_similarity(x, y).isnan().tolist() == [False, True, False, False]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_duplicate_constant_and_dependent_features_change_nothing(dtype):
    x, y = (rows.to(dtype) for rows in representations(6))
    constant = torch.full((200, 1), 1e3, dtype=dtype)
    more = torch.cat([x, x[:, :3], constant, x[:, :2] @ torch.ones(2, 1, dtype=dtype)], dim=1)
    found = cca(more, y)
    assert (found.x_kept, found.y_kept) == (6, 4)
    torch.testing.assert_close(found.correlations, cca(x, y).correlations, rtol=0, atol=1e-6)


def test_no_variance_gives_no_correlation_and_nan():
    x, y = torch.full((50, 3), 2.0), representations(0, samples=50)[1]
    assert cca(x, y).correlations.shape == (0,)
    assert svcca(x, y).isnan()
    assert pwcca(x, y).mean.isnan()
    assert class_similarity(x, y).tolist() == [0.0] * 4


def test_large_offset_costs_no_digits():
    x, y = representations(7)
    torch.testing.assert_close(svcca(x + 1e6, y - 1e6), svcca(x, y), rtol=0, atol=1e-8)


def test_fewer_samples_than_directions_is_one_and_says_so():
    x, y = torch.randn(8, 6, generator=torch.Generator().manual_seed(0)), torch.eye(8)[:, :5]
    with pytest.warns(UserWarning, match="8 samples are too few for 6 and 5 directions: 4 of their 5"):
        found = cca(x, y)
    torch.testing.assert_close(found.correlations[:4], torch.ones(4, dtype=torch.float64))


def test_rounding_takes_no_correlation_beyond_one():
    rng = np.random.default_rng(0)
    for _ in range(5):  # of 40 like these, all had one of 1 + 2e-16 or more
        x = torch.from_numpy(rng.standard_normal((50, 6)))
        y = x @ torch.from_numpy(rng.standard_normal((6, 6)))
        assert float(cca(x, y).correlations.max()) <= 1
        assert float(class_similarity(x, y).max()) <= 1


def test_one_correlation_that_is_forced_is_said_and_none_is_not():
    rng = np.random.default_rng(0)
    x, y = (torch.from_numpy(rng.standard_normal((7, 3))) for _ in range(2))
    assert float(cca(x, y).correlations.max()) < 1 - 1e-6
    with pytest.warns(UserWarning, match="6 samples are too few for 3 and 3 directions: 1 of their 3 canonical"):
        assert float(cca(x[:6], y[:6]).correlations.max()) == pytest.approx(1)


def test_bad_arguments():
    x, y = representations(0)
    with pytest.raises(ValueError, match=r"`delta` in \(0, 1\], got 1\.5"):
        cca(x, y, delta=1.5)
    with pytest.raises(ValueError, match=r"`delta` in \(0, 1\], got 0"):
        whiten(torch.eye(2).double(), delta=0.0)
    with pytest.raises(ValueError, match="rows of the same samples, got 200 and 199"):
        svcca(x, y[1:])
    with pytest.raises(TypeError, match="Expected rows `y`"):
        cca(x)
    pair = pair_moments(x, y)
    with pytest.raises(TypeError, match="no `y` beside moments"):
        cca(pair, y)
    with pytest.raises(ValueError, match="finite moments"):
        cca(PairMoments(pair.samples, pair.xx * torch.nan, pair.yy, pair.xy))
