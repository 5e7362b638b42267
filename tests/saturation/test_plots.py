from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
from matplotlib import pyplot

from lightning_saturation.drawing.canvas import colours, new_figure, thin
from lightning_saturation.saturation.plots.windows import heatmap_figure, spectrum_figure
from lightning_saturation.saturation.report.report import SaturationReport
from tests.profiles import profile

LONG = [f"model.backbone.encoder.block_{i}.residual_branch.depthwise_convolution" for i in range(12)]
HISTORIES = {
    "three layers": [profile([90, 40, 10], epoch=e) for e in range(4)],
    "fifty layers": [profile([i * 2 + 1 for i in range(50)], epoch=e, output=True) for e in range(40)],
    "long names": [profile([50] * 12, names=LONG)],
    "something missing": [profile([90, None, 10], epoch=e, samples=50) for e in range(2)],
    "two stages": [profile([90, 30, 10], epoch=e, stage=s) for e in range(3) for s in ("train", "val")],
}


@pytest.mark.parametrize("history", HISTORIES)
def test_every_layer_name_is_inside_the_picture_and_apart_from_its_neighbour(history):
    reports = HISTORIES[history]
    figure = heatmap_figure(reports)
    figure.draw_without_rendering()
    names = [name.removeprefix("model.backbone.encoder.") for name in reports[0].layers]  # what all long ones share
    named = [axes for axes in figure.axes if _labels(axes) == names]
    assert named
    for axes in named:
        axis = axes.yaxis if axes.yaxis.get_label_text().startswith("layer") else axes.xaxis
        boxes = [label.get_window_extent() for label in axis.get_ticklabels() if label.get_visible()]
        for box in [*boxes, axis.label.get_window_extent()]:
            assert box.x0 >= 0
            assert box.y0 >= 0
            assert box.x1 <= figure.bbox.x1 + 1
            assert box.y1 <= figure.bbox.y1 + 1
        assert not any(a.overlaps(b) for a, b in itertools.pairwise(boxes))
        # The data keep room of their own beside the names.
        assert min(axes.bbox.width, axes.bbox.height) > 120


def _labels(axes):
    return next(
        (
            [label.get_text() for label in axis.get_ticklabels() if label.get_visible()]
            for axis in (axes.xaxis, axes.yaxis)
            if axis.get_label_text().startswith("layer")
        ),
        None,
    )


def test_drawn_axes_are_labelled():
    for axes in heatmap_figure(HISTORIES["two stages"]).axes:
        if axes.axison and axes.get_title():
            shared = [other.get_xlabel() for other in axes.get_shared_x_axes().get_siblings(axes)]
            assert any(shared)


def test_heatmap_holds_the_matrix_layer_by_window_and_hatches_what_is_missing():
    axes = heatmap_figure([profile([90, 40], epoch=3), profile([None, 20], epoch=7)]).axes[0]
    image = axes.get_images()[0].get_array()
    np.testing.assert_allclose(image.filled(-1), [[0.9, -1], [0.4, 0.2]])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["3", "7"]
    assert "hatched: missing" in axes.get_xlabel()
    assert axes.get_images()[0].get_clim() == (0, 1)


def test_heatmap_of_many_windows_mixes_no_layers():
    figure = heatmap_figure([profile([95, 5], epoch=e) for e in range(900)])
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=figure.dpi)
    buffer.seek(0)
    picture = pyplot.imread(buffer)
    box = figure.axes[0].get_window_extent()
    top, bottom = (round(len(picture) - y) for y in (box.y1 - 3, box.y0 + 3))
    drawn = picture[top:bottom, round(box.x0 + 3) : round(box.x1 - 3)].reshape(-1, 4)
    assert len(np.unique(drawn, axis=0)) == 2


def test_a_long_history_is_ticked_at_even_steps():
    axes = heatmap_figure([profile([9, 4], epoch=e) for e in range(200)]).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == [str(e) for e in range(0, 200, 20)]


def test_windows_within_an_epoch_are_told_apart_by_step():
    reports = [SaturationReport(profile([9, 4]).layers, "train", 0, step) for step in (50, 100)]
    assert heatmap_figure(reports).axes[0].get_xlabel() == "step"


def test_layers_that_appear_later_are_drawn_in_the_order_of_the_fullest_report():
    reports = [profile([40, 10], names=["b", "c"]), profile([90, 40, 10], names=["a", "b", "c"], epoch=1)]
    matrix = heatmap_figure(reports).axes[0].get_images()[0].get_array()
    np.testing.assert_allclose(matrix.filled(-1), [[-1, 0.9], [0.4, 0.4], [0.1, 0.1]])


def test_spectrum_draws_shares_of_variance_with_a_dot_at_the_intrinsic_dimension():
    report = profile([20, 5])
    line, dot = spectrum_figure(report).axes[0].get_lines()[:2]
    np.testing.assert_allclose(line.get_ydata(), 20 * [1 / 20])
    assert dot.get_xdata()[0] == 20
    assert "all layers" in spectrum_figure(report).axes[0].get_title()


def test_spectrum_says_when_layers_are_left_out():
    axes = spectrum_figure(HISTORIES["fifty layers"][0], most=5).axes[0]
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["features.0", "features.12", "features.24", "features.37", "features.49"]
    assert "5 of 50 layers" in axes.get_title()


def test_nothing_to_draw_is_an_error():
    with pytest.raises(ValueError, match="at least one layer, got 0 reports"):
        heatmap_figure([])
    with pytest.raises(ValueError, match="with eigenvalues, got none in any of 2 layers"):
        spectrum_figure(profile([None, None]))


def test_figures_leave_pyplot_alone():
    before = pyplot.get_fignums()
    heatmap_figure([profile([9, 4])]).savefig(io.BytesIO())
    assert pyplot.get_fignums() == before


def test_colours_differ_in_lightness_so_that_hue_is_not_needed():
    luminance = [0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b, _ in colours(10)]
    assert all(b - a > 0.01 for a, b in itertools.pairwise(luminance))
    assert max(luminance) < 0.75


def test_thinning_keeps_both_ends():
    for count in (1, 2, 9, 10, 11, 200):
        kept = thin(range(count), 10)
        assert len(kept) == min(count, 10)
        assert kept[0] == 0
        assert kept[-1] == count - 1
        assert kept == sorted(set(kept))
    assert thin("abc", 1) == ["c"]


def test_a_new_figure_is_as_large_as_asked():
    assert tuple(new_figure(4, 3).get_size_inches()) == (4, 3)
