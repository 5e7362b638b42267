"""When a series has settled: the line's slope with its error, carried on to the end of training."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_saturation.stopping.plateau import plateau, projected_change

LAWS = settings(max_examples=50, deadline=None)
SERIES = st.lists(st.floats(0, 1), min_size=3, max_size=20)


@LAWS
@given(SERIES, st.floats(0.1, 50), st.integers(3, 14))
def test_the_bound_is_a_regression_carried_on(values, horizon, window):
    last = values[-window:]
    line, variance = np.polyfit(range(len(last)), last, 1, cov="unscaled")
    freedom = len(last) - 2
    noise = np.square(np.polyval(line, range(len(last))) - last).sum() / freedom
    expected = (abs(line[0]) + scipy.stats.t.ppf(0.95, freedom) * np.sqrt(variance[0, 0] * noise)) * horizon
    change = projected_change(values, horizon=horizon, window=window)
    assert change == pytest.approx(min(expected, 1.0), rel=1e-7, abs=1e-9)


def test_the_bound_covers_what_a_noisy_line_will_do():
    # 95 % one-sided about the slope: of noisy lines, at most some 5 % move on by more than the bound says.
    rng = np.random.default_rng(0)
    lines = 0.3 + 0.002 * np.arange(12) + rng.normal(0, 0.01, (2000, 12))
    bounds = [projected_change(line, horizon=10, window=12) for line in lines.tolist()]
    assert np.mean(np.array(bounds) < 0.02) < 0.07


@LAWS
@given(SERIES, st.floats(0.1, 5), st.floats(1, 10))
def test_a_longer_way_to_go_never_moves_less(values, horizon, factor):
    near, far = (projected_change(values, horizon=h) for h in (horizon, horizon * factor))
    assert near <= far + 1e-15


@LAWS
@given(SERIES, st.floats(0, 0.5))
def test_level_and_direction_do_not_matter(values, level):
    bound = projected_change(values, horizon=2.0)
    assert projected_change([v + level for v in values], horizon=2.0) == pytest.approx(bound, abs=1e-9)
    assert projected_change([-v for v in values], horizon=2.0) == pytest.approx(bound, abs=1e-12)


def test_only_the_last_window_counts():
    settled = [0.5] * 12
    assert projected_change([0.9, 0.1, 0.7, *settled], horizon=100, window=12) == 0.0
    assert projected_change([0.9, 0.1, 0.7, *settled], horizon=100, window=13) > 0.0


@pytest.mark.parametrize("values", [[], [0.5], [0.5, 0.5]])
def test_too_few_values_may_still_go_anywhere(values):
    assert projected_change(values, horizon=0.1) == 1.0


def test_without_an_end_of_training_another_window_is_the_horizon():
    values = [0.1, 0.11, 0.12, 0.13]
    assert projected_change(values, horizon=None, window=4) == pytest.approx(0.04)
    assert projected_change(values, horizon=None, window=12) == pytest.approx(0.12)


def test_at_the_end_of_training_nothing_moves_any_more():
    assert projected_change([0.1, 0.5, 0.2], horizon=0) == 0.0


def test_settled_means_all_series_full_and_below_the_tolerance():
    flat, rising = [0.5] * 12, [0.04 * i for i in range(12)]
    assert plateau({"a": flat}, horizon=10) == (0.0, True)
    assert not plateau({"a": flat, "b": rising}, horizon=10).converged
    assert plateau({"a": flat, "b": rising}, horizon=2).drift == pytest.approx(0.08)
    assert plateau({"a": flat, "b": rising}, horizon=2, tolerance=0.081).converged
    assert not plateau({"a": flat, "b": flat[:11]}, horizon=10).converged
    assert plateau({"a": flat[:5]}, horizon=10, window=5).converged


def test_no_series_has_not_settled():
    assert plateau({}, horizon=10) == (1.0, False)


def test_noise_alone_is_no_plateau():
    # Slope zero, but an error that leaves room for more than the tolerance.
    noisy = [0.5 + 0.02 * (-1) ** i for i in range(12)]
    assert abs(np.polyfit(range(12), noisy, 1)[0]) < 1e-3
    assert not plateau({"a": noisy}, horizon=10).converged


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 2}, "Expected `window` of at least 3 values to fit a line to, got 2"),
        ({"window": 0}, "Expected `window` of at least 3 values to fit a line to, got 0"),
        ({"horizon": -1.0}, r"Expected `horizon` of at least 0 or None, got -1.0"),
        ({"horizon": float("nan")}, r"Expected `horizon` of at least 0 or None, got nan"),
    ],
)
def test_bad_arguments_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        projected_change([0.5] * 12, **{"horizon": 1.0, **options})
    with pytest.raises(ValueError, match=message):
        plateau({"a": [0.5] * 12}, **{"horizon": 1.0, **options})


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_series_with_a_hole_is_an_error_and_no_plateau(bad):
    series = {"a": [0.5] * 12, "b": [*[0.5] * 11, bad]}
    with pytest.raises(ValueError, match=rf"Expected finite `values`, got {bad}"):
        plateau(series, horizon=1.0)


@pytest.mark.parametrize("tolerance", [0.0, -0.1, float("nan")])
def test_a_tolerance_that_nothing_meets_is_an_error(tolerance):
    with pytest.raises(ValueError, match=f"Expected a positive `tolerance`, got {tolerance}"):
        plateau({"a": [0.5] * 12}, horizon=1.0, tolerance=tolerance)
