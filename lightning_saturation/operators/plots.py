"""Layers as operators: how their eigenvalues lie, and how that moves while a network trains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_saturation.drawing import canvas
from lightning_saturation.operators.histogram import Histogram
from lightning_saturation.operators.report import SpectrumReport

BULK, SPIKES = "#31688e", "#d1495b"
"""Colours of estimated counts and of eigenvalues found one by one."""

LEAST_COUNT = 0.5
"""Where the logarithmic axis of counts begins: below one eigenvalue a bar means nothing."""


def histogram_figure(report: SpectrumReport, layers: Sequence[str] | None = None, *, most: int = 12) -> Figure:
    """Return a log-scaled histogram of eigenvalues per layer, bins made of spikes in another colour.

    ``layers`` defaults to all; of more than ``most``, ``most`` are drawn, evenly spread over the depth, and the title
    says so. A ``ValueError`` where the report has no such layer, or none at all.

    Source: *Evolution of Eigenvalue Decay in Deep Networks*, figure 1.
    """
    names = _known(report, layers)
    shown = canvas.thin(names, most)
    columns = min(3, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure = canvas.new_figure(4.2 * columns + 0.4, 2.7 * rows + 0.6)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, name in zip(grid, shown, strict=False):
        _draw(axes, report.layers[name])
        axes.set_title(f"{name} ({_how(report.layers[name])})", fontsize=canvas.LABEL_SIZE + 1)
    for axes in grid[len(shown) :]:
        axes.set_axis_off()
    _legend(figure, list(grid))
    figure.suptitle(f"Eigenvalues of HHᵀ, {_when(report)}{canvas.cut(shown, names)}", fontsize=11)
    return figure


def norms_figure(reports: Sequence[SpectrumReport], layers: Sequence[str] | None = None, *, most: int = 10) -> Figure:
    """Return the squared spectral norm λ_max of layers over training, one line per layer, log-scaled.

    A dotted vertical marks where a learning rate changed, or a grey span the epochs within which it did.

    Source: *Evolution of Eigenvalue Decay in Deep Networks*, figure 2.
    """
    if not reports:
        raise ValueError("Expected at least one report, got none.")
    names = _known(reports[-1], layers)
    shown = canvas.thin(names, most)
    figure = canvas.new_figure(7.0 + canvas.name_room(shown), 4.2)
    axes = figure.subplots()
    for index, (name, colour) in enumerate(zip(shown, canvas.colours(len(shown)), strict=True)):
        points = [(r.epoch, r.layers[name].largest) for r in reports if name in r.layers]
        style = canvas.LINE_STYLES[index % len(canvas.LINE_STYLES)]
        axes.plot(*zip(*points, strict=True), style, marker=".", color=colour, label=name)
    _mark_learning_rates(axes, reports)
    axes.set_yscale("log")
    canvas.label_log(axes.yaxis)
    axes.locator_params(axis="x", integer=True)
    axes.set_xlabel("epochs completed")
    axes.set_ylabel("largest eigenvalue of HHᵀ")
    axes.set_title(f"Squared spectral norms during training{canvas.cut(shown, names)}")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=canvas.LABEL_SIZE, frameon=False, title="layer")
    return figure


def evolution_figure(reports: Sequence[SpectrumReport], layer: str, *, most: int = 5) -> Figure:
    """Return the histograms of ``layer`` side by side, from the first report to the last, at most ``most`` of them.

    All share the axis of counts; each has its own axis of eigenvalues, because the largest one moves.

    Source: *Evolution of Eigenvalue Decay in Deep Networks*, figures 3 and 4.
    """
    known = [report for report in reports if layer in report.layers]
    if not known:
        raise ValueError(f"Expected `layer` to be in one of the {len(reports)} reports, got {layer!r}.")
    shown = canvas.thin(known, most)
    figure = canvas.new_figure(3.1 * len(shown) + 0.6, 3.4)
    grid = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    top = max(float(report.layers[layer].counts.max()) for report in shown)
    for axes, report in zip(grid, shown, strict=True):
        _draw(axes, report.layers[layer], top)
        histogram = report.layers[layer]
        title = f"{_when(report)} ({_how(histogram)})\nλ max {histogram.largest:.3g}"
        axes.set_title(title, fontsize=canvas.LABEL_SIZE + 1)
        axes.label_outer()
    _legend(figure, list(grid))
    figure.suptitle(f"{layer}: eigenvalues of HHᵀ{canvas.cut(shown, known)}", fontsize=11)
    return figure


def _draw(axes: Axes, histogram: Histogram, top: float = 1.0) -> None:
    edges, counts = histogram.edges.numpy(), histogram.counts.numpy()
    spikes = histogram.spike_counts.numpy() if histogram.method == "stochastic" else np.zeros_like(counts)
    exact = spikes >= np.maximum(counts - LEAST_COUNT, LEAST_COUNT)
    for chosen, colour, label in ((~exact, BULK, "bins"), (exact, SPIKES, "bins of spikes found one by one")):
        heights = np.where(chosen & (counts >= LEAST_COUNT), counts, LEAST_COUNT)
        if label.startswith("bins of") and not exact.any():
            continue
        axes.stairs(heights, edges, baseline=LEAST_COUNT, fill=True, color=colour, label=label)
    axes.set_yscale("log")
    axes.set_ylim(LEAST_COUNT, 1.5 * max(top, float(counts.max())))
    canvas.label_log(axes.yaxis)
    axes.set_xlim(0, edges[-1])
    axes.set_xlabel("eigenvalue", fontsize=canvas.LABEL_SIZE)
    axes.set_ylabel("eigenvalues per bin", fontsize=canvas.LABEL_SIZE)
    axes.tick_params(labelsize=canvas.LABEL_SIZE)


def _legend(figure: Figure, grid: Sequence[Axes]) -> None:
    known = [axes.get_legend_handles_labels() for axes in grid]
    entries = {label: handle for handles, labels in known for handle, label in zip(handles, labels, strict=True)}
    shown, labels = list(entries.values()), list(entries)
    figure.legend(shown, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=canvas.LABEL_SIZE)


def _mark_learning_rates(axes: Axes, reports: Sequence[SpectrumReport]) -> None:
    for before, after in pairwise(reports):
        if before.learning_rates and after.learning_rates and before.learning_rates != after.learning_rates:
            # Schedulers step before an epoch's report; between two distant reports nobody knows when it was.
            if after.epoch - before.epoch > 1:
                axes.axvspan(before.epoch, after.epoch, color="grey", alpha=0.15, lw=0)
            else:
                axes.axvline(after.epoch, color="grey", ls=":")


def _known(report: SpectrumReport, layers: Sequence[str] | None) -> list[str]:
    names = list(report.layers if layers is None else layers)
    unknown = [name for name in names if name not in report.layers]
    if unknown or not names:
        raise ValueError(f"Expected `layers` with a spectrum, among {list(report.layers)}, got {unknown or names}.")
    return names


def _how(histogram: Histogram) -> str:
    return "exact" if histogram.method == "exact" else "estimated"


def _when(report: SpectrumReport) -> str:
    return "before training" if report.epoch == report.step == 0 else f"after epoch {report.epoch}"
