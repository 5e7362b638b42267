from __future__ import annotations

import itertools

import numpy as np
import pytest
from matplotlib.colors import to_hex

from lightning_saturation.drawing.labels import short_names
from lightning_saturation.drawing.metric_curve import MetricCurve
from lightning_saturation.saturation.plots.bars import FINE, LOOKS, OUTPUT
from lightning_saturation.saturation.plots.verdict import verdict_figure
from lightning_saturation.saturation.report.report import SaturationReport
from tests.profiles import layer, missing, profile

LONG = [f"model.backbone.encoder.block_{i}.residual_branch.depthwise_convolution" for i in range(12)]


def grown(count, epochs=4, names=None):
    percent = [5 + (7 * i) % 90 for i in range(count)]
    return [profile([min(99, p + 2 * e) for p in percent], epoch=e, output=True, names=names) for e in range(epochs)]


def accuracy(values, name="val/accuracy"):
    return MetricCurve(name, range(len(values)), [10 * e for e in range(len(values))], values)


def heights(axes):
    return [bar.get_height() for bar in axes.patches]


def ticks(axes):
    """The values in the first window, from left to right."""
    return [line.get_segments()[0][0][1] for line in axes.collections]


@pytest.mark.parametrize("count", [1, 3, 12, 14, 15, 30, 60, 200])
@pytest.mark.parametrize("names", ["short", "long"])
def test_everything_written_is_inside_the_picture_and_apart_from_its_neighbours(count, names):
    layers = None if names == "short" else [f"{LONG[i % 12]}_{i}" for i in range(count)]
    figure = verdict_figure(grown(count, names=layers), metric=accuracy([0.1, 0.4, 0.5, 0.6]))
    figure.draw_without_rendering()
    bars = figure.axes[0]
    named = [label for label in bars.get_xticklabels() if label.get_text()]
    assert len(named) >= min(count, 25)
    written = [*named, *bars.texts, bars.xaxis.label, bars.yaxis.label, figure._suptitle]
    for text in written:
        box = text.get_window_extent()
        assert box.x0 >= -1, text
        assert box.y0 >= -1, text
        assert box.x1 <= figure.bbox.x1 + 1, text
        assert box.y1 <= figure.bbox.y1 + 1, text
    if named[0].get_rotation() in (0, 90):
        boxes = [label.get_window_extent() for label in named]
        assert not any(a.overlaps(b) for a, b in itertools.pairwise(boxes))
    boxes = [text.get_window_extent() for text in bars.texts]
    assert not any(a.overlaps(b) for a, b in itertools.pairwise(boxes))
    assert figure.get_size_inches().max() < 18
    assert min(axes.get_window_extent().height for axes in figure.axes) > 150
    legend = bars.get_legend().get_window_extent()
    assert not legend.overlaps(
        bars.title.get_window_extent() if bars.title.get_text() else bars._left_title.get_window_extent()
    )


def test_bars_hold_the_last_window_ticks_the_first_and_labels_the_directions():
    bars, over_time = verdict_figure([profile([90, 40]), profile([80, 30], epoch=1), profile([70, 20], epoch=2)]).axes
    assert heights(bars) == [0.7, 0.2]
    assert ticks(bars) == [0.9, 0.4]
    assert [text.get_text() for text in bars.texts] == ["70/100", "20/100"]
    np.testing.assert_allclose(over_time.get_lines()[0].get_ydata(), [0.65, 0.55, 0.45])
    assert over_time.get_xlabel() == "epoch"


def test_a_label_makes_room_for_the_tick_above_its_bar():
    bars = verdict_figure([profile([23, 50, 20]), profile([20, 20, 20], epoch=1)]).axes[0]
    assert [text.get_position()[1] for text in bars.texts] == pytest.approx([0.242, 0.212, 0.212])


def test_one_window_has_bars_alone():
    figure = profile([90, 40], output=True).plot()
    assert len(figure.axes) == 1
    assert not ticks(figure.axes[0])


def test_findings_have_a_colour_and_a_count():
    bars = verdict_figure([profile([40, 90, 40, 30, 4, 3, 90], output=True)]).axes[0]
    drawn = [to_hex(bar.get_facecolor()) for bar in bars.patches]
    fine, tail, bottleneck = FINE.colour, LOOKS["tail"].colour, LOOKS["bottleneck"].colour
    assert drawn == [fine, bottleneck, fine, fine, tail, tail, OUTPUT.colour]
    legend = [text.get_text() for text in bars.get_legend().get_texts()]
    assert legend == ["bottleneck (1)", "does little (2)", "output layer"]


def test_a_finding_about_the_average_colours_those_on_its_side_of_the_threshold():
    narrow = verdict_figure([profile([90, 20, 80])]).axes[0]
    drawn = [to_hex(bar.get_facecolor()) for bar in narrow.patches]
    assert drawn == [LOOKS["too narrow"].colour, FINE.colour, LOOKS["too narrow"].colour]
    wide = verdict_figure([profile([15, 25, 15])]).axes[0]
    drawn = [to_hex(bar.get_facecolor()) for bar in wide.patches]
    assert drawn == [LOOKS["too wide"].colour, FINE.colour, LOOKS["too wide"].colour]


def test_many_layers_are_labelled_where_something_is_found():
    percent = [40] * 100
    percent[50] = 95
    bars = verdict_figure([profile(percent)]).axes[0]
    assert [text.get_text() for text in bars.texts] == ["95/100"]


def test_what_is_missing_uncertain_or_seen_too_little_shows():
    sketched = SaturationReport({"a": missing(), "b": layer(30, samples=50), "c": layer(30)})
    bars = verdict_figure([sketched]).axes[0]
    assert heights(bars)[0] == 0
    assert bars.texts[0].get_text() == "?"
    assert [bool(bar.get_hatch()) for bar in bars.patches] == [False, True, False]
    assert "too few samples" in [text.get_text() for text in bars.get_legend().get_texts()]


def test_a_metric_between_0_and_1_shares_the_axis_and_another_has_its_own():
    windows = [profile([90, 40], epoch=e) for e in range(3)]
    shared = verdict_figure(windows, metric=accuracy([0.1, 0.5, float("nan")])).axes
    assert len(shared) == 2
    np.testing.assert_equal(shared[1].get_lines()[1].get_ydata(), [0.1, 0.5, float("nan")])
    own = verdict_figure(windows, metric=accuracy([2.0, 1.0, 0.5], "loss")).axes
    assert len(own) == 3
    assert [text.get_text() for text in own[2].get_legend().get_texts()] == ["average saturation", "loss (right)"]


def test_windows_within_an_epoch_lie_beside_the_metric_by_steps():
    windows = [SaturationReport(profile([9, 4]).layers, "train", step // 100, step) for step in (50, 100, 150, 200)]
    over_time = verdict_figure(windows, metric=MetricCurve("acc", [0, 1], [100, 200], [0.1, 0.2])).axes[1]
    assert over_time.get_xlabel() == "step"
    assert list(over_time.get_lines()[1].get_xdata()) == [100, 200]


def test_the_moment_of_settling_is_drawn_and_named():
    windows = [profile([90, 40], epoch=3 * e) for e in range(10)]
    over_time = verdict_figure(windows).axes[1]
    line = over_time.get_lines()[-1]
    assert list(line.get_xdata()) == [21, 21]
    assert line.get_label() == "settled"
    assert over_time.get_title(loc="left") == "Has it settled? From epoch 21 on"
    assert verdict_figure(windows[:5]).axes[1].get_title(loc="left") == "Has it settled? Not yet"


def test_the_title_says_what_the_profile_suggests_in_lines_that_fit():
    figure = verdict_figure([profile([90, 80, 95], names=[name[-60:] for name in LONG[:3]])])
    figure.draw_without_rendering()
    assert figure.get_suptitle().startswith("Too narrow: layers use 88 % of their features")
    assert "\n" in figure.get_suptitle()
    assert figure._suptitle.get_window_extent().x1 <= figure.bbox.x1


def test_nothing_to_draw_is_an_error():
    for reports in ([], [profile([])]):
        with pytest.raises(ValueError, match="to end with one that has layers"):
            verdict_figure(reports)


def test_short_names_leave_out_what_all_share_and_stay_apart():
    assert short_names(["net.a.conv", "net.b.conv"]) == ["a.conv", "b.conv"]
    assert short_names(["net", "net.0"]) == ["net", "net.0"]
    assert short_names(["features"]) == ["features"]
    assert short_names([]) == []
    assert short_names(["x.0123456789", "x.1123456789"], most=5) == ["0123456789", "1123456789"]
    assert short_names(["x.0123456789", "x.0123456780"], most=5) == ["…6789", "…6780"]
