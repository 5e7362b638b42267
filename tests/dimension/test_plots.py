"""Figures of dimensions say what the reports say."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from lightning_saturation.dimension.plots import dimension_figure, dimension_history_figure
from lightning_saturation.dimension.report import DimensionReport, LayerDimension


def report(epoch: int = 0, shift: float = 0.0) -> DimensionReport:
    values = {"input data": 5.0, "conv": 9.0, "hidden": 7.0, "output": math.nan}
    layers = {
        n: LayerDimension(64, 100, v + shift, 0.5, pca=20, classes={"0": 3.0, "1": 4.0}) for n, v in values.items()
    }
    layers["conv"] = replace(layers["conv"], lower_bound=True)
    return DimensionReport(layers, epoch=epoch, output_layers=("output",), baseline=layers)


def test_the_profile_shows_both_networks_and_both_dimensions() -> None:
    figure = report().plot()
    left, right = figure.axes
    labels = [text.get_text() for axes in figure.axes for text in axes.get_legend().get_texts()]
    assert "TwoNN, random weights" in labels
    assert "PCA, 90 % of variance" in labels
    assert "lower bound: too few samples" in labels
    assert "one class at a time (mean ± s.d. of 2)" in labels
    own = next(line for line in left.lines if list(line.get_xdata()) == pytest.approx([0, 1 / 3, 2 / 3, 1]))
    assert list(own.get_ydata())[:3] == [5.0, 9.0, 7.0]
    assert [tick.get_text() for tick in left.get_xticklabels()] == list(report().layers)
    assert right.get_yscale() == "log"
    figure.canvas.draw()


def test_the_history_marks_the_last_hidden_layer() -> None:
    figure = dimension_history_figure([report(0), report(1, shift=1.0)])
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert list(lines["hidden (last hidden)"].get_ydata()) == [7.0, 8.0]
    assert lines["hidden (last hidden)"].get_linewidth() > lines["conv"].get_linewidth()


def test_nothing_to_draw_is_an_error() -> None:
    with pytest.raises(ValueError, match="with layers"):
        dimension_figure(DimensionReport({}))
    with pytest.raises(ValueError, match="at least one report"):
        dimension_history_figure([])
