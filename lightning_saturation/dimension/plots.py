"""The dimension of the data over the depth of a network, and over training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_saturation.dimension.report import DimensionReport, LayerDimension
from lightning_saturation.drawing import canvas
from lightning_saturation.drawing.labels import fitting_names

LOWER_BOUND = "lower bound: too few samples"
_MOST_NAMES = 30  # there are two panels
OWN, RANDOM, GREY = "#0c2c84", "#d95f0e", "#777777"


def dimension_figure(report: DimensionReport) -> Figure:
    """Return the dimension over relative depth: TwoNN with error bars on the left, against PCA and width on the right.

    The baseline is dashed. Hollow points are lower bounds: the samples are too few to show so high a dimension. With
    dimensions of classes, their mean and standard deviation are drawn as well. A ``ValueError`` without any layer.

    Source: Ansuini et al., *Intrinsic dimension of data representations in deep neural networks*, 2019, figures 3, 5.
    """
    if not report.layers:
        raise ValueError("Expected a report with layers, got none.")
    names = list(report.layers)
    labels = fitting_names(names)
    width = max(4.2, 1.2 + 1.3 * canvas.layer_room(names, most=_MOST_NAMES))
    figure = canvas.new_figure(2 * width, 5.0 + canvas.name_room(labels))
    left, right = figure.subplots(1, 2)
    _profile(left, report)
    _against_pca(right, report)
    step = -(-len(names) // _MOST_NAMES)
    for axes in (left, right):
        axes.set_xticks(list(report.depth.values())[::step], labels[::step], rotation=90, fontsize=canvas.LABEL_SIZE)
        axes.set_xlabel("layer, by relative depth" + (f", one in {step} named" if step > 1 else ""))
        axes.grid(alpha=0.3)
        # Above: lines may run anywhere in the panel.
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=1, fontsize=canvas.LABEL_SIZE, frameon=False)
    figure.suptitle(f"Dimension of the data ({report.when})")
    return figure


def dimension_history_figure(reports: Sequence[DimensionReport], *, most: int = 15) -> Figure:
    """Return the TwoNN dimension of layers over the epochs, the last hidden layer thick; one panel per stage.

    With more than ``most`` layers, about as many of them are drawn, evenly spread over the depth.
    """
    stages: dict[str, list[DimensionReport]] = {}
    for report in reports:
        stages.setdefault(report.stage, []).append(report)
    if not stages:
        raise ValueError("Expected at least one report, got none.")
    figure = canvas.new_figure(7.5, 0.8 + 3.2 * len(stages))
    panels = figure.subplots(len(stages), squeeze=False, sharex=True)[:, 0]
    for axes, (stage, same_stage) in zip(panels, stages.items(), strict=True):
        known, hidden = list(same_stage[-1].layers), same_stage[-1].last_hidden
        few = canvas.thin(known, most)
        names = [name for name in known if name in few or name == hidden]
        for name, colour in zip(names, canvas.colours(len(names)), strict=True):
            last = name == hidden
            axes.plot(
                [report.epoch for report in same_stage],
                [report.two_nn.get(name, math.nan) for report in same_stage],
                color=colour,
                lw=2.6 if last else 1.0,
                marker="o",
                ms=4 if last else 2,
                label=f"{name} (last hidden)" if last else name,
            )
        axes.set_title(f"TwoNN dimension by layer ({stage}){canvas.cut(names, known)}", fontsize=10)
        axes.set_ylabel("TwoNN dimension")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=canvas.LABEL_SIZE, frameon=False)
    panels[-1].locator_params(axis="x", integer=True)
    panels[-1].set_xlabel("epoch")
    return figure


def _profile(axes: Axes, report: DimensionReport) -> None:
    _line(axes, report, report.layers, "TwoNN", OWN, "-")
    if report.baseline:
        _line(axes, report, report.baseline, "TwoNN, random weights", RANDOM, "--")
    classes = {name: layer for name, layer in report.layers.items() if layer.classes}
    if classes:
        places = [report.depth[name] for name in classes]
        means, spreads = ([getattr(layer, key) for layer in classes.values()] for key in ("class_mean", "class_spread"))
        label = f"one class at a time (mean ± s.d. of {max(len(layer.classes) for layer in classes.values())})"
        axes.errorbar(places, means, spreads, color=GREY, ls=":", marker="s", ms=3, capsize=2, label=label)
    axes.set_ylabel("TwoNN dimension (± standard error)")
    axes.set_ylim(bottom=0)


def _line(
    axes: Axes, report: DimensionReport, layers: Mapping[str, LayerDimension], label: str, colour: str, style: str
) -> None:
    places = [report.depth[name] for name in layers if name in report.depth]
    known = [layer for name, layer in layers.items() if name in report.depth]
    values, errors = [layer.two_nn for layer in known], [layer.standard_error for layer in known]
    axes.errorbar(places, values, errors, color=colour, ls=style, marker="o", ms=4, capsize=2, label=label)
    low = [(place, layer.two_nn) for place, layer in zip(places, known, strict=True) if layer.lower_bound]
    if low:
        new = not any(line.get_label() == LOWER_BOUND for line in axes.lines)
        named = LOWER_BOUND if new else None
        axes.plot(*zip(*low, strict=True), ls="none", marker="o", ms=5, mfc="white", mec=colour, label=named, zorder=3)


def _against_pca(axes: Axes, report: DimensionReport) -> None:
    share = f"PCA, {100 * report.delta:g} % of variance"
    lines = [(report.layers, "pca", share, "#41b6c4", "-"), (report.layers, "two_nn", "TwoNN", OWN, "-")]
    if report.baseline:
        lines.insert(1, (report.baseline, "pca", f"{share}, random weights", RANDOM, "--"))
    lines.insert(0, (report.layers, "features", "features (embedding dimension)", GREY, ":"))
    for layers, key, label, colour, style in lines:
        places = [report.depth[name] for name in layers if name in report.depth]
        values = [getattr(layer, key) for name, layer in layers.items() if name in report.depth]
        axes.plot(
            places, [v if v > 0 else math.nan for v in values], style, color=colour, marker="o", ms=3, label=label
        )
    axes.set_yscale("log")
    canvas.label_log(axes.yaxis)
    axes.set_ylabel("dimension")
