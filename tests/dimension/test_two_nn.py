"""TwoNN on manifolds of known dimension, against its law, and against packages that we did not write."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_saturation.dimension.copies import row_keys, without_copies
from lightning_saturation.dimension.neighbours import two_nearest
from lightning_saturation.dimension.two_nn_law import _kept, check_options, error_over_splits, estimate_from_nearest
from lightning_saturation.functional import two_nn_dimension, two_nn_estimate, two_nn_scales


def published() -> Tensor:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(2000, 5))
    return torch.from_numpy(points @ rng.normal(size=(5, 20)))


def sphere(samples: int, dimension: int, seed: int = 0) -> Tensor:
    x = torch.randn(samples, dimension + 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x / x.norm(dim=1, keepdim=True)


def swiss_roll(samples: int) -> Tensor:
    turn, height = torch.rand(2, samples, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    angle = (9 * turn + 3).sqrt() * 3
    return torch.stack([angle * angle.cos(), 20 * height, angle * angle.sin()], dim=1)


def test_the_value_that_three_packages_agree_on() -> None:
    assert float(two_nn_dimension(published())) == pytest.approx(5.0410253, abs=5e-8)


@pytest.mark.parametrize("estimator", ["fit", "mle"])
@pytest.mark.parametrize(
    ("x", "dimension"),
    [(sphere(2000, 1), 1), (sphere(2000, 2), 2), (sphere(2000, 4), 4), (swiss_roll(2000), 2), (published(), 5)],
    ids=["circle", "sphere", "4-sphere", "swiss roll", "5-plane"],
)
def test_manifolds_of_known_dimension(x: Tensor, dimension: int, estimator: str) -> None:
    estimate = two_nn_estimate(x, estimator=estimator, confidence=0.999)
    assert estimate.low < dimension < estimate.high
    assert not estimate.beyond_reach


@pytest.mark.parametrize(("estimator", "method"), [("fit", "linear"), ("mle", "mle")])
@pytest.mark.parametrize("discard", [0.05, 0.1, 0.4])
@pytest.mark.parametrize("samples", [50, 301])
def test_agrees_with_scikit_dimension(estimator: str, method: str, discard: float, samples: int) -> None:
    skdim = pytest.importorskip("skdim", exc_type=ImportError)
    x = published()[:samples]
    theirs = skdim.id.TwoNN(discard_fraction=discard, method=method).fit(x.numpy()).dimension_
    ours = two_nn_dimension(x, discard=discard, estimator=estimator)
    assert float(ours) == pytest.approx(theirs, rel=1e-9)


def test_maximum_likelihood_without_discarding_is_its_formula() -> None:
    x = published()[:300]
    distances = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").sort(dim=1).values
    expected = 299 / (distances[:, 2] / distances[:, 1]).log().sum()
    torch.testing.assert_close(two_nn_dimension(x, discard=0.0, estimator="mle"), expected, rtol=1e-12, atol=0)


def test_the_gamma_interval_is_scipys() -> None:
    from scipy import stats

    estimate = two_nn_estimate(published(), discard=0.1, estimator="mle", confidence=0.9)
    rate = (1800 - 1) / estimate.dimension
    assert estimate.low == pytest.approx(stats.gamma.ppf(0.05, 1800) / rate, rel=1e-9)
    assert estimate.high == pytest.approx(stats.gamma.ppf(0.95, 1800) / rate, rel=1e-9)


@pytest.mark.parametrize(("kept", "share"), [(2, math.inf), (3, 1.0), (4, 0.5**0.5)])
def test_the_likelihood_of_few_ratios_has_the_error_of_its_law(kept: int, share: float) -> None:
    """Epstein and Sobel: the error is d / √(kept − 2), and unknown for two."""
    far = torch.tensor([2.0, 3.0, 5.0, 7.0, 11.0]).double()
    nearest = torch.stack([torch.ones(5).double(), far], dim=1)
    found = estimate_from_nearest(nearest, discard=1 - kept / 5, estimator="mle")
    total = float(far[:kept].log().sum() + (5 - kept) * far[kept - 1].log())
    assert found.dimension == pytest.approx((kept - 1) / total, rel=1e-12)
    assert found.standard_error == pytest.approx(found.dimension * share, rel=1e-12)


@pytest.mark.parametrize("estimator", ["fit", "mle"])
@pytest.mark.parametrize("discard", [0.0, 0.1, 0.5])
def test_errors_and_intervals_are_those_of_the_law(estimator: str, discard: float) -> None:
    rng = np.random.default_rng(0)
    estimates = []
    for _ in range(400):
        far = np.exp(rng.exponential(size=200) / 7)
        nearest = torch.from_numpy(np.stack([np.ones(200), far], axis=1))
        estimates.append(estimate_from_nearest(nearest, discard=discard, estimator=estimator))
    spread = np.std([e.dimension for e in estimates])
    assert np.mean([e.standard_error for e in estimates]) == pytest.approx(spread, rel=0.1)
    assert np.mean([e.low < 7 < e.high for e in estimates]) == pytest.approx(0.95, abs=0.035)
    if estimator == "mle":
        mean = np.mean([e.dimension for e in estimates])
        assert mean == pytest.approx(7, abs=4 * spread / 20)  # unbiased


@settings(max_examples=20, deadline=None)
@given(
    scale=st.floats(1e-6, 1e6),
    shift=st.floats(-100, 100),
    seed=st.integers(0, 1000),
    estimator=st.sampled_from(["fit", "mle"]),
)
def test_rotation_scale_shift_and_order_do_not_matter(scale: float, shift: float, seed: int, estimator: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(60, 4, generator=generator, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64)).Q
    moved = (x @ rotation * scale + shift)[torch.randperm(60, generator=generator)]
    # A shift of 100 on a scale of 1e-6 leaves eight of the sixteen digits.
    options = {"estimator": estimator}
    torch.testing.assert_close(two_nn_dimension(moved, **options), two_nn_dimension(x, **options), rtol=1e-5, atol=0)


def test_an_embedding_into_more_features_does_not_matter() -> None:
    x = published()[:500]
    wide = torch.cat([x, torch.full((500, 100), 3.0, dtype=torch.float64)], dim=1)
    torch.testing.assert_close(two_nn_dimension(wide), two_nn_dimension(x), rtol=1e-9, atol=0)


def test_float32_at_a_large_offset() -> None:
    x = (published()[:800] * 16).round() / 16  # exact in float32, also after the shift
    moved = (x + 4096).float()
    torch.testing.assert_close(two_nn_dimension(moved), two_nn_dimension(x), rtol=1e-9, atol=0)


def test_duplicates_and_bad_rows_are_dropped_and_counted() -> None:
    x = published()[:300]
    bad = x[:2] + 100
    bad[0], bad[1, 3] = torch.nan, torch.inf  # all of a row, one number of a row
    estimate = two_nn_estimate(torch.cat([x, x[:7], bad]))
    assert (estimate.duplicates, estimate.skipped, estimate.points) == (7, 2, 300)
    assert estimate.dimension == two_nn_estimate(x).dimension


@pytest.mark.parametrize("copies", [0.05, 0.2, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_copies_do_not_bias_the_dimension(copies: float, dtype: torch.dtype) -> None:
    """As doubled neighbours they would make it 2.03, 2.33, 3.27 and none at all."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2000, 2, generator=generator, dtype=dtype)
    more = x.repeat(3, 1)[: int(copies * 2000)]
    mixed = torch.cat([x, more])[torch.randperm(2000 + len(more), generator=generator)]
    unique = torch.unique(mixed, dim=0)
    assert len(unique) == 2000
    for estimator in ("fit", "mle"):
        told = two_nn_estimate(mixed, estimator=estimator)
        assert told.dimension == pytest.approx(float(two_nn_dimension(unique, estimator=estimator)), rel=1e-12)
        assert told.duplicates == len(more)
    assert two_nn_scales(mixed)[0].points == 2000
    assert [scale.dimension for scale in two_nn_scales(mixed)] == pytest.approx([2.0] * 6, rel=0.15)


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(0, 60),
    features=st.integers(1, 5),
    levels=st.integers(1, 6),
    dtype=st.sampled_from([torch.bfloat16, torch.float32, torch.float64]),
    seed=st.integers(0, 10**6),
)
def test_different_rows_are_those_of_unique(
    rows: int, features: int, levels: int, dtype: torch.dtype, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-levels, levels, (rows, features), generator=generator).to(dtype) / 2
    x[::2] = -x[::2]  # some zeros are negative
    found = without_copies(x)
    assert torch.equal(torch.unique(found, dim=0), torch.unique(x, dim=0))
    assert len(found) == len(torch.unique(x, dim=0))
    assert torch.equal(row_keys(x.double()), row_keys(x))
    first = [not any(torch.equal(x[i], x[j]) for j in range(i)) for i in range(rows)]
    assert torch.equal(found, x[torch.tensor(first, dtype=torch.bool)])


def test_keys_tell_rows_of_few_bits_apart() -> None:
    """Small whole numbers have zeros in their low bits, which products alone would carry into every key."""
    x = torch.cartesian_prod(*[torch.arange(8.0)] * 5)
    assert len(row_keys(x).unique()) == 8**5


def test_a_dimension_above_what_the_points_show_is_said() -> None:
    x = torch.rand(256, 60, generator=torch.Generator().manual_seed(0))
    estimate = two_nn_estimate(x)
    assert estimate.beyond_reach
    assert 8 < estimate.dimension < 60  # indeed too low


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.randn(4, 3), "at least 5 different points .* got 4"),
        (torch.ones(100, 3), "got 0 .*99 duplicates"),
        (torch.full((100, 3), torch.nan), "100 rows with NaN"),
        (torch.zeros(0, 3), "got 0"),
        (torch.cartesian_prod(*[torch.arange(4.0)] * 3), "lattice"),
    ],
    ids=["few", "equal", "nan", "none", "lattice"],
)
def test_what_tells_no_dimension_is_an_error(x: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        two_nn_dimension(x)


@pytest.mark.parametrize("discard", [1.0, -0.1, math.nan])
@pytest.mark.parametrize("function", [two_nn_dimension, two_nn_estimate, two_nn_scales])
def test_discard_is_checked(function: Callable[..., object], discard: float) -> None:
    with pytest.raises(ValueError, match=rf"`discard` in \[0, 1\), got {discard}"):
        function(published()[:1], discard=discard)  # before anything is looked for in the points


def test_other_options_are_checked() -> None:
    with pytest.raises(ValueError, match=r"\('fit', 'mle'\), got 'ml'"):
        check_options(0.1, "ml")
    with pytest.raises(ValueError, match=r"`confidence`.*got 1\.0"):
        two_nn_estimate(published(), confidence=1.0)
    with pytest.raises(ValueError, match="`smallest` to be at least 5, got 4"):
        two_nn_scales(published(), smallest=4)


def test_scales_halve_the_points_and_agree_on_a_plane() -> None:
    scales = two_nn_scales(published(), smallest=100)
    assert [(scale.points, scale.subsets) for scale in scales] == [(2000, 1), (1000, 2), (500, 4), (250, 8), (125, 16)]
    assert scales[0].dimension == pytest.approx(5.0410253, abs=5e-8)
    for scale in scales:
        assert abs(scale.dimension - 5) < 4 * max(scale.standard_error, 0.05)


def test_the_error_of_a_scale_is_that_of_the_mean_of_its_subsets() -> None:
    x = published()[:400]
    (_, halves, quarters) = two_nn_scales(x, smallest=100)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    for scale in (halves, quarters):
        told = [float(two_nn_dimension(x[part])) for part in order.split(scale.points)]
        assert scale.dimension == pytest.approx(np.mean(told), rel=1e-12)
        assert scale.standard_error == pytest.approx(np.std(told, ddof=1) / np.sqrt(len(told)), rel=1e-12)


def test_scales_tell_noise_from_structure() -> None:
    # A line with noise in nine directions: a line from afar, ten-dimensional from close by.
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4096, 10, generator=generator) * 1e-3
    x[:, 0] = torch.rand(4096, generator=generator)
    scales = two_nn_scales(x, smallest=64)
    assert scales[0].dimension > 2 * scales[-1].dimension


def test_scales_are_those_of_seed_zero() -> None:
    x = published()[:400]
    assert two_nn_scales(x) == two_nn_scales(x, seed=0) != two_nn_scales(x, seed=1)


def test_scales_draw_nothing_from_the_global_generator() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert two_nn_scales(published()) == two_nn_scales(published())
    assert torch.equal(before, torch.get_rng_state())


def test_the_dimension_carries_no_gradient() -> None:
    assert not two_nn_dimension(published().requires_grad_()).requires_grad


def test_the_error_over_splits_is_near_the_laws_on_even_data() -> None:
    nearest = two_nearest(published())
    errors = [error_over_splits(nearest, splits=20, seed=seed) for seed in range(5)]
    assert np.mean(errors) == pytest.approx(two_nn_estimate(published()).standard_error, rel=0.35)
    assert error_over_splits(nearest, seed=1) == error_over_splits(nearest, seed=1)
    assert math.isnan(error_over_splits(nearest[:8], splits=8))
    assert error_over_splits(nearest, splits=2) > 0
    assert math.isnan(error_over_splits(nearest[:9], splits=2, discard=0.0))  # five points tell, four do not
    with pytest.raises(ValueError, match="`splits` of at least 2, got 1"):
        error_over_splits(nearest, splits=1)


@pytest.mark.parametrize("points", [7, 100, 1999])
def test_the_share_that_is_kept_is_rounded_down_as_decimals_are(points: int) -> None:
    """Not as binary fractions are: 100 * (1 - 0.71) is 28.999999999999996."""
    assert [_kept(points, percent / 100) for percent in range(100)] == [
        points * (100 - percent) // 100 for percent in range(100)
    ]


def test_ten_parts_of_a_tenth_less_tell_the_error_unless_asked_otherwise() -> None:
    nearest = two_nearest(published()[:300])
    assert error_over_splits(nearest) == error_over_splits(nearest, splits=10, discard=0.1, estimator="fit", seed=0)
    assert error_over_splits(nearest) != error_over_splits(nearest, splits=11)
