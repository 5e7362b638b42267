"""The sketch's certificate against NumPy's exact scatter, however the rows come and whatever their spectrum."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_saturation.covariance.sketch import add_to_sketch, empty_sketch, merge_sketches, sketch_size
from lightning_saturation.covariance.sketch_bounds import Bracket, dimension_bracket, estimated_eigenvalues
from lightning_saturation.covariance.spectrum import intrinsic_dimension

SPECTRA = {
    "flat": lambda i: 0 * i + 1.0,
    "power law": lambda i: i**-1.5,
    "exponential": lambda i: 2.0**-i,
    "one spike": lambda i: (i == 1) + 1e-6,
    "rank deficient": lambda i: (i <= 4) * 1.0,
    "cluster": lambda i: (i <= 3) + 1e-2 * (1 + 1e-9 * i) * (i <= 12),
}


def rows_of(spectrum, n, d, offset=0.0, seed=0):
    rng = np.random.default_rng(seed)
    scale = np.sqrt(SPECTRA[spectrum](np.arange(1.0, d + 1)))
    rotation = np.linalg.qr(rng.standard_normal((d, d)))[0]
    return torch.from_numpy(rng.standard_normal((n, d)) * scale @ rotation + offset * rng.standard_normal(d))


def sketched(rows, size, parts):
    sketch = empty_sketch(rows.shape[1], size=size)
    for part in rows.split(parts):
        sketch, _ = add_to_sketch(sketch, part)
    return sketch


def exact(rows):
    centred = rows.numpy() - rows.numpy().mean(0)
    return centred.T @ centred


def exact_dimension(rows, delta):
    return intrinsic_dimension(torch.from_numpy(np.linalg.eigvalsh(exact(rows)).copy()), delta=delta)


def assert_certified(sketch, scatter):
    """Every clause of the class docstring."""
    gram = (sketch.rows.T @ sketch.rows).numpy()
    error = np.linalg.eigvalsh(scatter - gram)
    rounding = float(sketch.rounding) + 1e-12 * np.trace(scatter)
    assert error[0] >= -rounding
    assert error[-1] <= float(sketch.shrinkage) + rounding
    assert float(sketch.trace) == pytest.approx(np.trace(scatter), rel=1e-10, abs=1e-12)
    products = (sketch.rows @ sketch.rows.T).numpy()
    assert np.abs(products - np.diag(np.diag(products))).max() <= rounding


cases = {
    "spectrum": st.sampled_from(sorted(SPECTRA)),
    "n": st.integers(1, 90),
    "d": st.sampled_from([1, 2, 17, 40]),
    "size": st.sampled_from([1, 3, 8, 50]),
    "parts": st.integers(1, 40),
    "offset": st.sampled_from([0.0, 1.0, 1e4]),
    "seed": st.integers(0, 1000),
}


@settings(max_examples=80, deadline=None)
@given(**cases)
def test_the_certificate_holds_for_any_rows_in_any_parts(spectrum, n, d, size, parts, offset, seed):
    rows = rows_of(spectrum, n, d, offset, seed)
    assert_certified(sketched(rows, size, parts), exact(rows))


@settings(max_examples=80, deadline=None)
@given(**cases, ranks=st.integers(2, 4))
def test_merged_sketches_keep_the_certificate(spectrum, n, d, size, parts, offset, seed, ranks):
    shards = [rows_of(spectrum, n + r, d, offset * (r + 1), seed + r) for r in range(ranks)]
    sketches = [sketched(shard, size, parts) for shard in shards] + [empty_sketch(d, size=size)]
    merged = sketches[0]
    for sketch in sketches[1:]:
        merged = merge_sketches(merged, sketch)
    rows = torch.cat(shards)
    assert_certified(merged, exact(rows))
    assert int(merged.samples) == len(rows)
    torch.testing.assert_close(merged.mean, rows.mean(0))


@settings(max_examples=120, deadline=None)
@given(**cases, delta=st.sampled_from([0.25, 0.5, 0.9, 0.99, 0.999, 1.0]))
def test_the_bracket_contains_the_exact_dimension(spectrum, n, d, size, parts, offset, seed, delta):
    rows = rows_of(spectrum, n, d, offset, seed)
    lower, upper = dimension_bracket(sketched(rows, size, parts), delta=delta)
    assert lower <= exact_dimension(rows, delta) <= upper <= d


@pytest.mark.parametrize("delta", [0.5, 0.75, 0.9, 0.99])
def test_the_bracket_contains_the_dimension_of_real_activations(delta):
    """Handwritten digits through a random layer: correlated, sparse, far from Gaussian."""
    digits = pytest.importorskip("sklearn.datasets").load_digits().data
    weights = np.random.default_rng(0).standard_normal((64, 256)) / 8
    rows = torch.from_numpy(np.maximum(digits @ weights, 0))
    truth = exact_dimension(rows, delta)
    widths = []
    for size in (8, 32, 128, 256):
        lower, upper = dimension_bracket(sketched(rows, size, 100), delta=delta)
        assert lower <= truth <= upper
        widths.append(upper - lower)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] == 0


def crosses(lengths, repeats, seed):
    """Rows ± length along each axis: of whole numbers, so that their scatter is known without any rounding."""
    axes = torch.diag(torch.tensor(lengths, dtype=torch.float64))
    rows = torch.cat([axes, -axes]).repeat(repeats, 1)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    return rows[order], [Fraction(2 * repeats * length**2) for length in sorted(lengths, reverse=True)]


@pytest.mark.parametrize("offset", [0.0, 1e4, 1e6])
@pytest.mark.parametrize("parts", [1, 7, 50])
def test_no_rounding_of_means_breaks_the_bracket_next_to_a_partial_sum(offset, parts):
    for seed in range(3):
        rows, squares = crosses([9, 8, 7, 6, 5, 4, 3, 2], 5, seed)
        moved = (rows + offset).float()
        assert torch.equal(moved.double() - offset, rows)
        sketch = sketched(moved, 8, parts)
        total, held = sum(squares), Fraction(0)
        for square in squares[:-1]:
            held += square
            for margin in (-3e-13, -1e-13, 1e-13, 3e-13):
                delta = float(held / total) * (1 + margin)
                sums = [sum(squares[:k]) for k in range(9)]
                truth = next(k for k in range(9) if sums[k] >= (Fraction(delta) - 8 * Fraction(2) ** -52) * total)
                lower, upper = dimension_bracket(sketch, delta=delta)
                assert lower <= truth <= upper <= lower + 1
    assert float(sketch.rounding) <= 1e-9 * float(sketch.trace)  # it still says something


@pytest.mark.parametrize("parts", [1, 7, 30])
def test_rows_that_are_equal_have_dimension_zero(parts):
    sketch = sketched(torch.full((70, 5), 0.1, dtype=torch.float64), 3, parts)
    assert float(sketch.trace) == 0
    assert dimension_bracket(sketch) == Bracket(0, 0)


def test_what_may_be_all_rounding_may_have_dimension_zero():
    rows = 0.1 + 1e-17 * torch.randn(70, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sketch = sketched(rows * 1e3, 3, 7)
    lower, upper = dimension_bracket(sketch._replace(rounding=2 * sketch.trace + 1e-300))
    assert lower == 0
    assert upper <= 5


def test_rounding_adds_up_over_merges():
    first, second = (sketched(rows_of("power law", 40, 12, 5.0, seed), 6, 5) for seed in (0, 1))
    merged = merge_sketches(first, second)
    assert float(merged.rounding) > float(first.rounding + second.rounding)
    assert float(first.rounding) > 4 * (6 + 5 + 1) * 2.0**-52 * float(first.trace)  # of eight merges


@pytest.mark.parametrize("weight", [1, 3])
@pytest.mark.parametrize("rows", [1, 2, 30])
def test_the_rounding_of_one_part_is_what_higham_allows(rows, weight):
    """A sum of n terms is off by n roundings of the sum of their sizes, a square of a difference by four of its own."""
    x = rows_of("power law", rows, 12, 5.0)
    eps, moved = 2.0**-52, (x - x[0]).numpy()
    squares = (moved**2).sum()
    mean_error = (rows + 3) * eps * math.sqrt(squares / rows)
    part, _ = add_to_sketch(empty_sketch(12, size=6), x, weight=weight)
    centred = moved - moved.mean(0)
    own = weight * (rows * mean_error**2 + 4 * eps * squares)
    merging = 4 * (6 + rows + 1) * eps * weight * (centred**2).sum()  # with nothing, which is a merge as well
    assert float(part.drift) == pytest.approx(mean_error, rel=1e-6)
    assert float(part.rounding) == pytest.approx(own + merging, rel=1e-6)


def test_the_rounding_of_a_merge_is_that_of_its_parts_of_the_means_and_of_the_eigenproblem():
    eps, sketches = 2.0**-52, [sketched(rows_of("power law", n, 12, 5.0, n), 6, n) for n in (40, 10)]
    # As after a long window: means that are known badly, so that no term drowns in another.
    first, second = (
        s._replace(drift=torch.tensor(d, dtype=torch.float64)) for s, d in zip(sketches, (1e-3, 2e-3), strict=True)
    )
    merged = merge_sketches(first, second)
    apart, weight = (second.shift - first.shift).norm(), math.sqrt(40 * 10 / 50)
    means = float((second.mean - first.mean).norm())
    lengths = float(apart + first.offset.norm() + second.offset.norm())
    unsure = weight * (1e-3 + 2e-3 + 3 * eps * lengths)
    own = float(first.rounding + second.rounding) + 4 * 13 * eps * float(merged.trace)
    assert float(merged.rounding) == pytest.approx(own + 2 * weight * means * unsure + unsure**2, rel=1e-9)
    assert float(merged.drift) == pytest.approx(1e-3 * 0.8 + 2e-3 * 0.2, rel=1e-9)

    exact_means = [s._replace(drift=torch.zeros(()).double(), rounding=torch.zeros(()).double()) for s in sketches]
    merged = merge_sketches(*exact_means)
    unsure = weight * 3 * eps * lengths
    expected = 4 * 13 * eps * float(merged.trace) + 2 * weight * means * unsure
    assert float(merged.rounding) == pytest.approx(expected, rel=1e-9, abs=0)
    assert float(merged.drift) == pytest.approx(4 * eps * (float(first.offset.norm()) + means), rel=1e-9, abs=0)


def test_a_sketch_of_nothing_makes_no_mean_uncertain():
    sketch = sketched(rows_of("power law", 40, 12, 1e6, 0), 6, 4)
    merged = merge_sketches(sketch, empty_sketch(12, size=6))
    assert float(merged.drift) <= float(sketch.drift + 4.01 * 2.0**-52 * sketch.offset.norm())


def test_rounding_grows_as_the_square_of_the_rows():
    rows = rows_of("power law", 30, 12, 5.0)
    small, large = (float(sketched(rows * scale, 6, 7).rounding) for scale in (2.0**-30, 2.0**30))
    assert large == pytest.approx(small * 2.0**120, rel=1e-9)


def test_the_bracket_has_the_same_slack_at_a_tie_as_the_dimension():
    """In wide layers it is larger than all rounding of a sketch that lost nothing."""
    rows, squares = crosses([4, 3, 2, 1], 1, 0)
    wide = torch.cat([rows, torch.zeros(8, 4092)], dim=1)
    delta = float((squares[0] + squares[1]) / sum(squares)) * (1 + 2000 * 2.0**-52)
    lower, upper = dimension_bracket(sketched(wide, 8, 8), delta=delta)
    assert lower <= intrinsic_dimension(torch.tensor([*map(float, squares), *[0.0] * 4092]), delta=delta) <= upper
    assert lower == 2


def test_a_tie_at_the_threshold_is_inside_the_bracket():
    rows = torch.cat([torch.eye(16), -torch.eye(16)]).double()
    for k in range(1, 17):
        lower, upper = dimension_bracket(sketched(rows, 16, 5), delta=k / 16)
        assert lower <= k <= upper <= lower + 1


def test_a_sketch_that_lost_nothing_is_exact():
    rows = rows_of("rank deficient", 200, 40)
    sketch = sketched(rows, 6, 7)
    assert float(sketch.shrinkage) < 1e-9 * float(sketch.trace)
    assert dimension_bracket(sketch) == Bracket(4, 4)
    truth = torch.from_numpy(np.linalg.eigvalsh(exact(rows))[::-1].copy()) / 199
    torch.testing.assert_close(estimated_eigenvalues(sketch), truth, rtol=1e-9, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(**cases)
def test_the_estimate_keeps_the_trace(spectrum, n, d, size, parts, offset, seed):
    rows = rows_of(spectrum, n, d, offset, seed)
    estimate = estimated_eigenvalues(sketched(rows, size, parts))
    assert len(estimate) == d
    assert float(estimate.min()) >= 0
    assert float(estimate.sum()) == pytest.approx(np.trace(exact(rows)) / max(n - 1, 1), rel=1e-9, abs=1e-12)


def test_a_weight_counts_rows_several_times():
    rows = rows_of("power law", 30, 12, offset=3.0)
    weighted, _ = add_to_sketch(empty_sketch(12, size=12), rows, weight=3)
    assert int(weighted.samples) == 90
    assert_certified(weighted, exact(rows.repeat(3, 1)))


def test_rows_that_are_not_finite_are_left_out_and_counted():
    rows = rows_of("flat", 20, 5)
    spoiled = rows.clone()
    spoiled[3, 2], spoiled[7, 0] = math.nan, math.inf
    sketch, skipped = add_to_sketch(empty_sketch(5, size=5), spoiled)
    assert int(skipped) == 2
    assert_certified(sketch, exact(rows[[i for i in range(20) if i not in (3, 7)]]))


def test_rows_that_come_one_by_one_are_all_there():
    rows = rows_of("flat", 9, 5, offset=7.0)
    sketch = sketched(rows, 9, 1)
    torch.testing.assert_close(sketch.shift + sketch.offset, rows.mean(0), rtol=1e-12, atol=0)
    assert float(sketch.trace) == pytest.approx(np.trace(exact(rows)), rel=1e-12)


def test_nothing_and_one_row_have_dimension_zero():
    sketch = empty_sketch(4, size=2)
    assert dimension_bracket(sketch) == Bracket(0, 0)
    sketch, _ = add_to_sketch(sketch, torch.ones(1, 4))
    assert dimension_bracket(sketch) == Bracket(0, 0)
    assert estimated_eigenvalues(sketch).tolist() == [0.0] * 4


def test_a_sketch_born_in_inference_mode_goes_on_outside():
    with torch.inference_mode():
        sketch = empty_sketch(3, size=2)
    assert not sketch.rows.is_inference()


def test_the_state_of_a_wide_layer_is_a_fraction_of_the_exact_one():
    sketch = empty_sketch(16_384)
    held = sum(t.numel() * t.element_size() for t in sketch)
    assert held * 20 <= 16_384**2 * 8
    assert sketch_size(16) == 64


def test_arguments_are_checked():
    with pytest.raises(ValueError, match=r"`size` of at least 1 row, got 0"):
        empty_sketch(4, size=0)
    with pytest.raises(ValueError, match="`delta`"):
        dimension_bracket(empty_sketch(4), delta=1.5)
    broken = empty_sketch(4)._replace(trace=torch.tensor(math.nan, dtype=torch.float64))
    with pytest.raises(ValueError, match="finite sketch"):
        dimension_bracket(broken)
