"""When a profile has settled: laws of the rule, and what it does about learning rates."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_saturation.functional import settled
from lightning_saturation.stopping.settled import drop_ahead, profile_changes

LAWS = settings(max_examples=50, deadline=None)
SERIES = st.lists(st.floats(0, 1), min_size=1, max_size=25)
FLAT = [0.5] * 30


def moving(until: int, length: int = 30) -> list[float]:
    """Return values that rise by .05 a window until window ``until``, and not after."""
    return [0.05 * min(index, until) for index in range(length)]


def by_the_words(values, *, window, tolerance, patience):
    """Return the answer for one layer and a constant rate, read off the sentence of the rule."""
    for last in range(len(values)):
        windows = range(last - patience + 1, last + 1)
        if windows[0] - window >= 0 and all(abs(values[w] - values[w - window]) < tolerance for w in windows):
            return last
    return None


@LAWS
@given(SERIES, st.integers(1, 6), st.floats(0.01, 0.9), st.integers(1, 4))
def test_the_rule_is_the_sentence(values, window, tolerance, patience):
    options = {"window": window, "tolerance": tolerance, "patience": patience}
    assert settled({"a": values}, **options) == by_the_words(values, **options)


@LAWS
@given(SERIES, st.integers(0, 25), st.integers(1, 6), st.floats(0.01, 0.9), st.integers(1, 4))
def test_what_comes_later_does_not_move_the_stop(values, cut, window, tolerance, patience):
    """The rule knows no end of training: cut shorter, a series stops where it did, or not at all."""
    options = {"window": window, "tolerance": tolerance, "patience": patience}
    whole, part = settled({"a": values}, **options), settled({"a": values[:cut]}, **options)
    assert part == (whole if whole is not None and whole < cut else None)


@LAWS
@given(SERIES)
def test_level_direction_and_order_of_layers_do_not_matter(values):
    up, down = [v / 2 + 0.3 for v in values], [0.9 - v / 2 for v in values]
    assert settled({"a": up}) == settled({"a": down}) == settled({"a": up, "b": down}) == settled({"b": down, "a": up})


def test_it_settles_window_and_patience_after_the_last_move():
    assert settled({"a": FLAT}) == 7
    assert settled({"a": moving(10)}) == 10 + 5 + 2
    assert settled({"a": moving(10)}, window=2, patience=4) == 10 + 2 + 3
    assert settled({"a": moving(99)}) is None
    assert settled({"a": FLAT[:7]}) is None
    assert settled({}) is None


def test_the_mean_over_layers_decides():
    # .02 over five windows in one layer: above .01 alone, below it as one of three.
    slow = [0.004 * index for index in range(30)]
    assert settled({"a": slow}) is None
    assert settled({"a": slow, "b": FLAT, "c": FLAT}) == 7
    opposite = [0.5 - 0.004 * index for index in range(30)]
    assert settled({"a": slow, "b": opposite}) is None  # changes do not cancel


def test_missing_values_are_left_out_of_the_mean_and_nothing_known_is_not_settled():
    hole = [*FLAT[:3], math.nan, *FLAT[4:]]
    assert settled({"a": hole, "b": FLAT}) == 7
    assert settled({"a": hole}) == 7  # window 8 says nothing, later than needed
    assert settled({"a": [*FLAT[:6], math.nan, *FLAT[7:]]}) == 9
    assert settled({"a": [math.nan] * 30}) is None


def test_an_abrupt_drop_begins_anew():
    rates = [0.1] * 6 + [0.01] * 24
    assert settled({"a": FLAT}, learning_rates=rates) == 6 + 7
    assert settled({"a": FLAT}, learning_rates=[0.1] * 6 + [0.075] * 24) == 7
    assert settled({"a": FLAT}, learning_rates=[0.01] * 6 + [0.1] * 24) == 7  # a rise changes the profile, if anything


def test_each_step_of_a_staircase_begins_anew():
    stairs = [0.1 ** (index // 4) for index in range(30)]
    assert settled({"a": FLAT}, learning_rates=stairs) is None
    assert settled({"a": FLAT}, window=1, patience=2, learning_rates=stairs) is None
    assert settled({"a": FLAT}, window=1, patience=1, learning_rates=stairs) == 28 + 1


def test_a_planned_drop_is_waited_for():
    rates = [0.1] * 20 + [0.01] * 10
    assert settled({"a": FLAT}, learning_rates=rates) == 20 + 7
    assert settled({"a": FLAT[:20]}, learning_rates=rates) is None
    assert settled({"a": FLAT[:20]}, learning_rates=rates[:20]) == 7


@pytest.mark.parametrize(
    "smooth",
    [
        [0.5 * (1 + math.cos(math.pi * index / 30)) for index in range(30)],
        [0.9**index for index in range(30)],
        [1 - index / 30 for index in range(30)],
    ],
    ids=["cosine", "exponential", "linear"],
)
def test_smooth_schedules_change_nothing(smooth):
    assert settled({"a": FLAT}, learning_rates=smooth) == 7
    assert settled({"a": moving(10)}, learning_rates=smooth) == 17
    assert settled({"a": moving(10)}, learning_rates=[(rate, 1.0) for rate in smooth]) == 17


def test_a_warm_up_waits_for_the_fall_behind_it():
    triangle = [0.01 * (1 + min(index, 12 - min(index, 12))) for index in range(13)]
    assert drop_ahead([0.01, *[0.1, 0.05], 0.01])
    assert drop_ahead(triangle)
    assert not drop_ahead([1.0, 0.8, 0.6, 0.4])


def test_any_group_and_another_number_of_groups_count():
    two = [(0.1, 0.1)] * 6 + [(0.1, 0.01)] * 24
    assert settled({"a": FLAT}, learning_rates=two) == 6 + 7
    more = [(0.1,)] * 6 + [(0.1, 0.1)] * 24
    assert settled({"a": FLAT}, learning_rates=more) == 6 + 7
    idle = [(0.1, 0.0)] * 30
    assert settled({"a": FLAT}, learning_rates=idle) == 7


def test_changes_are_the_means():
    series = {"a": [0.0, 0.1, 0.3], "b": [0.5, 0.5, 0.4]}
    assert profile_changes(series, window=1) == pytest.approx([math.nan, 0.05, 0.15], nan_ok=True)
    assert profile_changes(series, window=2) == pytest.approx([math.nan, math.nan, 0.2], nan_ok=True)


@pytest.mark.parametrize(
    ("series", "options", "message"),
    [
        ({"a": FLAT}, {"window": 0}, "Expected `window` of at least 1, got 0"),
        ({"a": FLAT}, {"patience": 0}, "Expected `patience` of at least 1, got 0"),
        ({"a": FLAT}, {"tolerance": 0.0}, r"Expected `tolerance` in \(0, 1\], got 0.0"),
        ({"a": FLAT}, {"tolerance": math.nan}, r"Expected `tolerance` in \(0, 1\], got nan"),
        ({"a": FLAT, "b": FLAT[1:]}, {}, r"Expected `series` of one length, got lengths \[29, 30\]"),
        ({"a": FLAT}, {"learning_rates": [0.1] * 29}, "Expected `learning_rates` for all 30 windows, got 29"),
    ],
)
def test_bad_arguments_are_errors(series, options, message):
    with pytest.raises(ValueError, match=message):
        settled(series, **options)
