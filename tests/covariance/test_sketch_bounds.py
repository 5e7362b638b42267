"""What a sketch proves, against its definition written down once more, for sketches that no rows need to exist for."""

import math

import pytest
import torch

from lightning_saturation.covariance.sketch import Sketch
from lightning_saturation.covariance.sketch_bounds import _first_possible, dimension_bracket, estimated_eigenvalues


def made_up(squares, shrinkage, lost, *, features, samples, rounding=0.0):
    """A sketch that kept ``squares`` and lost ``lost`` of the trace, at most ``shrinkage`` in any direction."""
    rows = torch.zeros(len(squares), features, dtype=torch.float64)
    for index, square in enumerate(squares):
        rows[index, index] = math.sqrt(square)
    zero = torch.zeros(features, dtype=torch.float64)
    numbers = [torch.tensor(x, dtype=torch.float64) for x in (sum(squares) + lost, shrinkage, rounding, 0.0)]
    return Sketch(torch.tensor(samples), zero, zero, rows, *numbers)


def sketches():
    generator = torch.Generator().manual_seed(0)
    for number in range(150):
        size = 1 + number % 4
        squares = sorted(torch.randint(0, 9, (size,), generator=generator).tolist(), reverse=True)
        shrinkage = float(torch.randint(0, 4, (), generator=generator)) + 0.25
        features, samples = size + number % 7, 2 + number % 11
        lost = shrinkage * float(torch.rand((), generator=generator)) * min(features, samples - 1)
        if sum(squares):
            rounding = (0.0, 0.3, 1e-9)[number % 3]
            yield made_up(squares, shrinkage, lost, features=features, samples=samples, rounding=rounding)


def definition(sketch, delta):
    squares = sketch.rows.square().sum(1).sort(descending=True).values.tolist()
    total, shrinkage, rounding = float(sketch.trace), float(sketch.shrinkage), float(sketch.rounding)
    features = sketch.rows.shape[1]
    rank = min(features, int(sketch.samples) - 1)
    threshold = delta * total - features * 2.0**-52 * total
    held = [sum(squares[:j]) for j in range(rank + 1)]
    lost = max(total - sum(squares), 0.0)
    lower = next((j for j in range(rank + 1) if held[j] + min(j * shrinkage, lost) >= threshold - rounding), rank)
    surely = [
        max([held[j]] + [held[r] + (total - held[r]) * (j - r) / (rank - r) for r in range(min(j + 1, rank))])
        for j in range(rank + 1)
    ]
    upper = next((j for j in range(rank + 1) if surely[j] >= threshold + rounding), rank)
    return (max(lower, 1) if total > rounding else 0), max(upper, 1)


@pytest.mark.parametrize("delta", [0.3, 0.75, 0.99, 1.0])
def test_the_bracket_is_that_of_its_definition(delta):
    count = 0
    for sketch in sketches():
        assert tuple(dimension_bracket(sketch, delta=delta)) == definition(sketch, delta)
        count += 1
    assert count > 100


def test_what_lost_nothing_but_is_unsure_reaches_all_of_the_variance_at_its_rank_only():
    sketch = made_up([4.0, 2.0], 0.0, 0.0, features=5, samples=4, rounding=0.3)
    assert dimension_bracket(sketch, delta=1.0) == (2, 3)
    assert dimension_bracket(sketch._replace(trace=sketch.trace * 0), delta=1.0) == (0, 0)
    tiny = made_up([4e-3, 2e-3], 0.0, 0.0, features=5, samples=4)
    assert dimension_bracket(tiny, delta=1.0) == (2, 2)  # variance has no least size


def test_rows_span_one_direction_less_than_there_are():
    """Corners of a simplex, all of whose variance is even, in a sketch of enough rows, or of one that it lost."""
    for samples in (2, 3, 5):
        for squares, lost in (([1.0] * (samples - 1), 0.0), ([0.0], samples - 1.0))[: samples - 1]:
            sketch = made_up(squares, 1.0, lost, features=9, samples=samples)
            assert dimension_bracket(sketch, delta=1.0).upper == samples - 1
            values = estimated_eigenvalues(sketch) * (samples - 1)
            assert int((values > 0).sum()) == samples - 1 - squares.count(0.0)
            assert float(values.sum()) == pytest.approx(samples - 1)


def test_what_was_kept_gets_its_shrinkage_back_and_the_rest_is_spread_evenly():
    sketch = made_up([9.0, 4.0, 0.0], 0.5, 2.5, features=8, samples=7)
    values = estimated_eigenvalues(sketch) * 6
    assert values.tolist() == pytest.approx([9.5, 4.5, 0.5, 0.5, 0.5, 0, 0, 0])
    little = estimated_eigenvalues(made_up([9.0, 4.0], 0.5, 0.6, features=8, samples=7)) * 6
    assert little.tolist() == pytest.approx([9.3, 4.3, 0, 0, 0, 0, 0, 0])  # no more than was lost comes back
    full = estimated_eigenvalues(made_up([9.0, 4.0], 0.5, 2.6, features=2, samples=7)) * 6
    assert full.tolist() == pytest.approx([9.5 * 15.6 / 14, 4.5 * 15.6 / 14])  # nowhere else to put the rest
    small = estimated_eigenvalues(made_up([9e-4, 4e-4], 5e-5, 2.6e-4, features=2, samples=7)) * 6
    assert small.tolist() == pytest.approx([9.5e-4 * 15.6 / 14, 4.5e-4 * 15.6 / 14])  # at any scale
    assert estimated_eigenvalues(made_up([9.0], 0.0, 0.0, features=1, samples=1)).tolist() == [9.0]


def test_a_sum_that_may_just_reach_the_threshold_does():
    assert _first_possible([0.0, 4.0, 6.0], 0.0, 0.0, 4.0, 5) == 1
    assert _first_possible([0.0, 4.0, 6.0], 1.0, 2.0, 8.0, 5) == 2
