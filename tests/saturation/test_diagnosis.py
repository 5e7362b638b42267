from __future__ import annotations

import dataclasses
import json
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_saturation.saturation.report.layer import LayerStatistics
from lightning_saturation.saturation.report.report import SaturationReport
from tests.profiles import layer, missing, profile

HEALTHY = [40, 45, 42, 35, 30, 25]
NARROW = [90, 95, 90, 85, 80, 75]
LONG_TAIL = [60, 65, 50, 30, 4, 3, 2, 2]
NARROW_WAIST = [30, 25, 90, 20, 25]


def kinds(report, **options):
    return report.diagnose(**options).kinds


def only(report, **options):
    (finding,) = report.diagnose(**options).findings
    return finding


def test_a_healthy_profile_has_no_finding():
    diagnosis = profile(HEALTHY).diagnose()
    assert diagnosis.findings == ()
    assert str(diagnosis).splitlines() == [
        diagnosis.verdict, "Diagnosis (train, epoch 0): average saturation 0.36", "- nothing to flag",
    ]  # fmt: skip


def test_too_narrow_by_the_average():
    finding = only(profile(NARROW))
    assert finding.kind == "too narrow"
    assert finding.evidence["average"] == pytest.approx(sum(NARROW) / 600)
    assert finding.evidence["threshold"] == 0.45
    assert "figure 9" in finding.source


def test_the_average_must_be_above_not_at_the_threshold():
    assert kinds(profile([45, 45, 45]), average_above=0.45) == ()
    assert kinds(profile([45, 46, 45]), average_above=0.45) == ("too narrow",)


def test_output_layers_do_not_count_for_the_average():
    assert kinds(profile([40, 40, 99], output=True)) == ()
    assert kinds(profile([40, 40, 99])) == ("too narrow",)


def test_missing_layers_count_as_low_before_a_network_is_called_too_narrow():
    diagnosis = profile([90, None, None, None]).diagnose()
    assert diagnosis.findings == ()
    assert "the average 0.90 is above 0.45, but not for sure" in str(diagnosis)
    assert kinds(profile([90, 95, 90, None])) == ("too narrow",)


def test_the_threshold_of_the_paper_is_not_used_beyond_its_delta():
    strict = dataclasses.replace(profile(NARROW), delta=0.999)
    diagnosis = strict.diagnose()
    assert diagnosis.findings == ()
    assert "delta 0.999" in diagnosis.notes[0]
    assert kinds(dataclasses.replace(strict, delta=0.9)) == ("too narrow",)


def run_of(*percents):
    return [profile([p, p, p], epoch=epoch) for epoch, p in enumerate(percents)]


def test_a_network_that_always_was_too_narrow_is_told_so():
    history = run_of(60, 65, 70, 75)
    finding = only(history[-1], history=history)
    assert finding.message == (
        "layers use 75 % of their features on average, more than 45 %, in every window since the first"
    )
    assert finding.evidence == {"average": 0.75, "threshold": 0.45, "windows": 4}
    assert "first" not in only(history[-1], history=history[1:]).message  # a resumed run did not see the first


@pytest.mark.parametrize("percents", [(40, 65, 70, 75), (60, 65, 30, 75), (60, 65, 40, 75)])
def test_a_network_that_was_low_once_was_not_always_too_narrow(percents):
    history = run_of(*percents)
    assert "first" not in only(history[-1], history=history).message


def test_other_stages_and_partial_windows_are_no_part_of_the_history():
    history = run_of(60, 65, 70)
    val = [dataclasses.replace(report, stage="val") for report in history]
    assert "first" not in only(history[-1], history=val).message
    cut = [dataclasses.replace(history[0], partial=True), history[1]]
    assert "first" not in only(history[-1], history=cut).message


def test_a_profile_that_still_moves_may_not_stay():
    history = run_of(30, 31, 32, 33, 34, 36)
    (note,) = history[-1].diagnose(history=history).notes
    assert re.fullmatch(r"the profile has moved by 0.0(59|60) in the last 5 windows: it may not stay as it is", note)
    assert run_of(30, 31, 32)[-1].diagnose(history=run_of(30, 31, 32)).notes == ()  # too early to say
    still = run_of(36, 31, 32, 33, 34, 36)
    assert still[-1].diagnose(history=still).notes == ()


def bound(percent, reach):
    """Return a layer of 100 features whose inputs allow ``reach`` directions."""
    return dataclasses.replace(layer(percent), reach=reach)


def test_layers_that_could_hold_more_may_be_too_wide():
    finding = only(SaturationReport({"a": layer(10), "b": layer(20)}))
    assert finding.kind == "too wide"
    assert finding.message == "a, b use 15 % of their features on average, less than 20 %"
    assert finding.evidence == {"average": pytest.approx(0.15), "threshold": 0.2}
    assert only(SaturationReport({"a": layer(10)})).message == "a uses 10 % of its features, less than 20 %"
    assert kinds(SaturationReport({"a": layer(10), "b": layer(30)})) == ()


def test_layers_whose_inputs_leave_no_room_are_no_evidence():
    assert kinds(SaturationReport({"a": bound(3, 3), "b": layer(40)})) == ()
    assert only(SaturationReport({"a": bound(3, 3), "b": layer(10)})).layers == ("b",)
    assert only(SaturationReport({"a": bound(3, 100), "b": layer(10)})).layers == ("a", "b")
    # Beside a layer that cannot be full, one that is full is no bottleneck.
    waist = {"a": bound(3, 3), "b": layer(60), "c": layer(20)}
    assert kinds(SaturationReport(waist)) == ()
    assert kinds(SaturationReport({**waist, "a": layer(3)})) == ("bottleneck",)


def test_what_was_not_measured_is_not_too_wide():
    assert kinds(SaturationReport({"a": layer(10), "b": missing()})) == ()
    assert kinds(SaturationReport({"a": layer(10, samples=50)})) == ("too few samples",)


def test_where_rows_hold_nan_the_advice_is_not_more_rows():
    lost = LayerStatistics.from_eigenvalues(None, features=16, samples=0, skipped=128)
    short = LayerStatistics.from_eigenvalues(None, features=16, samples=0, skipped=8)
    (finding,) = SaturationReport({"a": short, "b": lost}).diagnose().findings
    assert "look for where NaN or infinity comes from; b is the first layer" in finding.advice
    assert "128 rows of b hold NaN" in str(finding)
    (finding,) = SaturationReport({"a": short}).diagnose().findings
    assert "measure over at least 17 rows" in finding.advice


def test_a_long_tail_is_named_layer_by_layer():
    finding = only(profile(LONG_TAIL))
    assert finding.kind == "tail"
    assert finding.layers == ("features.4", "features.5", "features.6", "features.7")
    assert finding.evidence == {"highest": 0.04, "peak": 0.65, "threshold": 0.1, "layers": 4}
    assert "figures 1 and 10" in finding.source
    assert "features.4, features.5, features.6, features.7" in finding.message


@pytest.mark.parametrize("percent", [[5, 4, 5, 4], [12, 9, 9, 9]])
def test_low_throughout_is_too_wide_and_no_tail(percent):
    assert kinds(profile(percent)) == ("too wide",)


def test_an_output_layer_neither_ends_nor_joins_a_tail():
    assert only(profile([*LONG_TAIL, 99], output=True)).layers[-1] == "features.7"
    assert only(profile([*LONG_TAIL, 2], output=True)).layers[-1] == "features.7"


@pytest.mark.parametrize(
    "percent",
    [
        [60, 30, 4, 3, 20],  # a dip, not an end
        [60, 30, 20, 4],  # a single layer
        [25, 9, 35, 22],  # low in the middle
        [60, 30, 4, 3, None],  # the end was not measured
    ],
)
def test_what_is_no_tail(percent):
    assert kinds(profile(percent)) == ()


def test_too_few_samples_never_make_a_tail():
    layers = {"a": layer(60), "b": layer(40), "c": layer(4, samples=50), "d": layer(3, samples=50)}
    assert kinds(SaturationReport(layers)) == ("too few samples",)
    layers = {"a": layer(60), "b": layer(40), "c": layer(4, samples=101), "d": layer(3, samples=101)}
    assert kinds(SaturationReport(layers)) == ("tail",)


def test_of_a_sketched_layer_the_bounds_count():
    def sketched(percent, lower, upper):
        return dataclasses.replace(layer(percent), saturation_lower=lower, saturation_upper=upper)

    tail = {"a": layer(60), "b": layer(30), "c": sketched(4, 0.03, 0.2), "d": layer(3)}
    assert kinds(SaturationReport(tail)) == ()
    assert kinds(SaturationReport({**tail, "c": sketched(4, 0.03, 0.05)})) == ("tail",)
    assert kinds(SaturationReport({"a": sketched(60, 0.4, 0.8)})) == ()
    assert kinds(SaturationReport({"a": sketched(60, 0.5, 0.8)})) == ("too narrow",)


def test_a_long_list_of_layers_is_counted_in_the_text_and_complete_in_the_data():
    finding = profile([60, 60] + 20 * [2]).diagnose().findings[0]
    assert len(finding.layers) == 20
    assert "features.2, features.3, … 16 more …, features.20, features.21" in finding.message


def test_bottleneck():
    finding = only(profile(NARROW_WAIST))
    assert finding.kind == "bottleneck"
    assert finding.layers == ("features.2",)
    assert finding.evidence == {"saturation": 0.9, "neighbours": 0.25, "threshold": 0.3}
    assert finding.message == "features.2 uses 90 % of its 100 features, its neighbours at most 25 %"


@pytest.mark.parametrize(
    "percent",
    [
        [90, 20, 20, 20],  # the first layer has one neighbour only
        [20, 20, 20, 90],  # and so has the last
        [20, 90, 80, 20],  # a hill of two
        [30, 90, None, 30],  # a neighbour that may be as high
        [20, 40, 20],  # not far enough
    ],
)
def test_what_is_no_bottleneck(percent):
    assert "bottleneck" not in kinds(profile(percent))


def test_an_output_layer_is_no_bottleneck_but_a_neighbour():
    heads = dataclasses.replace(profile(NARROW_WAIST), output_layers=("features.2",))
    assert kinds(heads) == ()
    beside = dataclasses.replace(profile([30, 25, 90, 80, 25]), output_layers=("features.3",))
    assert kinds(beside) == ()


def test_a_neighbour_with_too_few_samples_may_be_as_high():
    layers = {"a": layer(20), "b": layer(60), "c": layer(20, samples=40)}
    assert kinds(SaturationReport(layers)) == ("too few samples",)
    layers = {"a": layer(20), "b": layer(60, samples=80), "c": layer(20)}  # at least 0.6 is enough to say
    assert kinds(SaturationReport(layers)) == ("bottleneck", "too few samples")


def test_too_few_samples_says_which_layers_and_how_many_are_needed():
    layers = {"a": layer(10, 64, samples=64), "b": layer(10, 512, samples=500), "c": layer(10, 64, samples=65)}
    finding = only(SaturationReport(layers))
    assert finding.layers == ("a", "b")
    assert finding.evidence == {"needed": 513, "samples": 64}
    assert finding.advice == "measure over at least 513 rows a window, better several times as many"
    assert finding.sure == "certain"
    assert "b: 500 for 512 features" in finding.message


def test_thresholds_are_arguments():
    assert kinds(profile(HEALTHY), average_above=0.3) == ("too narrow",)
    assert kinds(profile(HEALTHY), tail_below=0.31, tail_drop=1.1) == ("tail",)
    assert kinds(profile(LONG_TAIL), tail_layers=5) == ()
    assert kinds(profile(LONG_TAIL), tail_drop=20) == ()
    assert kinds(profile(HEALTHY), bottleneck_above=0.02) == ("bottleneck",)
    assert kinds(profile(HEALTHY), wide_below=0.4) == ("too wide",)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"average_above": 1.5}, r"`average_above`, a saturation, in \[0, 1\], got 1.5"),
        ({"tail_below": -0.1}, r"`tail_below`, a saturation, in \[0, 1\], got -0.1"),
        ({"bottleneck_above": 0}, "`bottleneck_above` above 0, got 0"),
        ({"tail_drop": math.nan}, "`tail_drop` above 0, got nan"),
        ({"wide_below": 2}, r"`wide_below`, a saturation, in \[0, 1\], got 2"),
        ({"tail_layers": 0}, "`tail_layers` of at least 1, got 0"),
    ],
)
def test_thresholds_are_checked(options, match):
    with pytest.raises(ValueError, match=match):
        profile(HEALTHY).diagnose(**options)


@pytest.mark.parametrize(
    ("percent", "verdict"),
    [
        (
            HEALTHY,
            "No layer stands out: on average layers use 36 % of their features, and nothing asks for other widths.",
        ),
        (
            NARROW,
            "Too narrow: layers use 86 % of their features on average, more than 45 %; try twice the width, which helps"
            " more than more layers.",
        ),
        (
            LONG_TAIL,
            "Tail: the last 4 of 8 layers use at most 4 % of their features, after a peak of 65 % (features.4,"
            " features.5, features.6, features.7); try the network without them, or with fewer features there.",
        ),
        (
            NARROW_WAIST,
            "Bottleneck: features.2 uses 90 % of its 100 features, its neighbours at most 25 %; try more features there"
            " first.",
        ),
        (
            [10, 12, 9],
            "Too wide: features.0, features.1, features.2 use 10 % of their features on average, less than 20 %; try"
            " half the width there, which is cheaper and often no worse.",
        ),
        ([None, None], "Nothing was measured, so that nothing can be said."),
    ],
)
def test_the_verdict_is_one_sentence_that_says_what_to_do(percent, verdict):
    assert profile(percent).diagnose().verdict == verdict


def test_the_verdict_names_what_else_there_is():
    both = profile([60, 95, 55, 60, 4, 3]).diagnose()
    assert both.kinds == ("too narrow", "bottleneck", "tail")
    assert both.verdict.endswith("more layers (also: bottleneck features.1, a tail of 2 layers).")


def test_too_few_samples_come_first_where_they_are_most_of_the_network():
    some = {"a": layer(60), "b": layer(60), "c": layer(55, samples=60)}
    assert kinds(SaturationReport(some)) == ("too narrow", "too few samples")
    most = {"a": layer(60, samples=80), "b": layer(60, samples=80), "c": layer(60)}
    assert kinds(SaturationReport(most)) == ("too few samples", "too narrow")
    assert SaturationReport(most).diagnose().verdict == (
        "Too few samples: 2 of 3 layers saw no more rows than they have features, which caps their saturation (a: 80"
        " for 100 features, b: 80 for 100 features); measure over at least 101 rows a window, better several times as"
        " many (also: too narrow)."
    )


def test_the_text_says_what_to_try_and_how_sure_that_is():
    assert str(profile(NARROW_WAIST).diagnose()).splitlines()[2:4] == [
        "- bottleneck: features.2 uses 90 % of its 100 features, its neighbours at most 25 %",
        "    try more features there first (possible)",
    ]


def test_a_diagnosis_is_plain_data():
    diagnosis = profile(LONG_TAIL).diagnose()
    data = json.loads(json.dumps(dataclasses.asdict(diagnosis)))
    assert data["findings"][0]["layers"] == [f"features.{i}" for i in range(4, 8)]


def test_an_empty_or_unmeasured_report_has_no_finding():
    assert kinds(SaturationReport({})) == ()
    assert kinds(SaturationReport({"a": missing(), "b": missing()})) == ()


percents = st.lists(st.one_of(st.none(), st.integers(1, 99)), max_size=8)


@settings(max_examples=100, deadline=None)
@given(percents, st.data())
def test_measuring_less_never_adds_a_finding(percent, data):
    """Forgetting a layer's value can only take findings about saturation away."""
    before = profile(percent).diagnose()
    if percent:
        hidden = data.draw(st.integers(0, len(percent) - 1))
        after = profile([None if i == hidden else p for i, p in enumerate(percent)]).diagnose()
        assert set(after.kinds) <= set(before.kinds)


@settings(max_examples=100, deadline=None)
@given(percents, st.floats(0.01, 1.0))
def test_suggested_widths_bring_the_measured_dimension_to_the_target(percent, target):
    report = profile(percent, output=True)
    widths = report.suggest_widths(target=target)
    assert set(widths) | set(widths.left_out) == set(report.layers)
    for name, width in widths.items():
        dimension = report.layers[name].intrinsic_dimension
        assert dimension / width <= target * (1 + 1e-6)
        assert width == 1 or dimension / (width - 1) > target * (1 - 1e-6)
    if not {"too narrow", "bottleneck"} & set(report.diagnose().kinds):
        assert all(width <= report.layers[name].features for name, width in widths.items())


def test_widths_are_labelled_as_estimates_and_say_what_is_left_out():
    layers = {"a": layer(90), "e": layer(80), "b": layer(20, samples=50), "c": missing(), "d": layer(9)}
    report = dataclasses.replace(SaturationReport(layers), output_layers=("d",))
    widths = report.suggest_widths(target=0.2)
    assert dict(widths) == {"a": 450, "e": 400}
    assert str(widths).splitlines() == [
        "Features at a saturation of 0.2, if the intrinsic dimension stays as measured",
        "layer  features now  estimate",
        "a               100       450",
        "e               100       400",
        "b                              no estimate: 50 samples for 100 features hide part of the dimension",
        "c                              no estimate: nothing was measured",
        "d                              no estimate: an output layer, its width is the task's",
    ]


def test_widths_that_would_not_help_are_refused():
    layers = {"conv": bound(3, 3), "a": layer(60), "b": layer(10), "c": bound(30, 50)}
    widths = SaturationReport(layers).suggest_widths(target=0.4)
    assert dict(widths) == {"b": 25}
    assert widths.left_out == {
        "conv": "its inputs allow about 3 directions, whatever its width",
        "a": "60 % used, and nothing says that more features would help",
        "c": "its inputs allow about 50 directions, whatever its width",
    }
    waist = {"a": layer(20), "b": layer(60), "c": layer(20)}
    assert SaturationReport(waist).suggest_widths(target=0.4)["b"] == 150


def test_widths_say_what_they_do_to_the_number_of_weights():
    """Three linear layers of 100 features, the first of which has 50 inputs and the last 10 outputs."""

    def linear(percent, inputs, features=100):
        return dataclasses.replace(layer(percent, features), inputs=inputs, weights=inputs * features)

    report = SaturationReport(
        {"a": linear(20, 50), "b": linear(10, 100), "c": linear(5, 100, 10)}, output_layers=("c",)
    )
    widths = report.suggest_widths(target=0.4)
    assert dict(widths) == {"a": 50, "b": 25}
    assert widths.weights == (50 * 100 + 100 * 100 + 100 * 10, 50 * 50 + 50 * 25 + 25 * 10)
    assert str(widths).splitlines()[-1] == "Weights of these layers: 16,000 -> 4,000 (-75%)"
    assert profile([10]).suggest_widths(target=0.4).weights is None


@pytest.mark.parametrize("target", [0.0, 1.01, math.nan])
def test_target_is_checked(target):
    with pytest.raises(ValueError, match="`target`, a saturation, in"):
        profile([1]).suggest_widths(target=target)
