"""Saturation over the layers: one line per window."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lightning_saturation.drawing import canvas
from lightning_saturation.saturation.report import windows
from lightning_saturation.saturation.report.report import SaturationReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_LINES = 10


def profile_figure(reports: Sequence[SaturationReport]) -> Figure:
    """Return the saturation of every layer as one line per report, at most ten of them, one panel per stage.

    The last window is drawn thick; hollow points are output layers, which the average leaves out, crosses are layers
    with too few samples to fill their space, and bars the certified bounds of sketched layers. A ``ValueError`` where
    no report has a layer.
    """
    stages, names = windows.by_stage(reports), windows.layer_names(reports)
    width = max(6.4, 3.2 + canvas.layer_room(names))
    figure = canvas.new_figure(width, 1.0 + 3.2 * len(stages) + canvas.name_room(names))
    panels = figure.subplots(len(stages), squeeze=False, sharex=True)[:, 0]
    for axes, same_stage in zip(panels, stages.values(), strict=True):
        draw_profile(axes, same_stage, names, across=True)
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=canvas.LABEL_SIZE, frameon=False)
        axes.set_ylabel(saturation_label(same_stage[-1]))
    canvas.name_layers(panels[-1].xaxis, names, rotate=sum(map(len, names)) > 60)
    return figure


def draw_profile(axes: Axes, reports: Sequence[SaturationReport], names: Sequence[str], *, across: bool) -> None:
    """Draw the windows of one stage into ``axes``: layers from left to right if ``across``, else from top to bottom."""
    drawn = canvas.thin(reports, MOST_LINES)
    unit, _ = windows.when(reports)
    places = np.arange(len(names))
    for report, colour in zip(drawn, canvas.colours(len(drawn)), strict=True):
        last = report is drawn[-1]
        values = windows.saturation_matrix([report], names)[:, 0]
        label = f"{_moment(report, unit)}: average {report.average:.2f}"
        line = (places, values) if across else (values, places)
        axes.plot(*line, color=colour, label=label, lw=2.2 if last else 1.0, marker="o", ms=4 if last else 2.5)
    _mark(axes, drawn[-1], names, across=across)
    cut = f", {len(drawn)} of {len(reports)} windows" if len(drawn) < len(reports) else ""
    axes.set_title(f"Saturation by layer ({reports[-1].stage}{cut})", fontsize=10)
    (axes.set_ylim if across else axes.set_xlim)(-0.02, 1.02)
    (axes.set_xlim if across else axes.set_ylim)(-0.5, len(names) - 0.5)
    axes.grid(alpha=0.3)


def saturation_label(report: SaturationReport) -> str:
    """Return the axis label that says what saturation counts and of what."""
    return f"saturation\n(share of dimensions for {100 * report.delta:g} % of variance)"


def _moment(report: SaturationReport, unit: str) -> str:
    if unit == "window":
        return "window"
    return f"{unit} {getattr(report, unit)}{' (partial)' if report.partial else ''}"


def _mark(axes: Axes, report: SaturationReport, names: Sequence[str], *, across: bool) -> None:
    """Mark, in the last window, the layers whose value must be read with care."""
    known = [i for i, n in enumerate(names) if n in report.layers and not math.isnan(report.layers[n].saturation)]
    outputs = [i for i in known if names[i] in report.output_layers]
    short = [i for i in known if report.layers[names[i]].too_few_samples]
    uncertain = [i for i in known if report.layers[names[i]].is_bracketed]
    if uncertain:
        low = [report.layers[names[i]].saturation_lower for i in uncertain]
        high = [report.layers[names[i]].saturation_upper for i in uncertain]
        draw = axes.vlines if across else axes.hlines
        draw(uncertain, low, high, color="black", lw=1.2, label="certified bounds", zorder=2.5)
    for places, marker, size, label in ((outputs, "o", 7, "output layer"), (short, "x", 8, "too few samples")):
        values = [report.layers[names[i]].saturation for i in places]
        points = (places, values) if across else (values, places)
        if places:
            axes.plot(*points, ls="none", color="black", marker=marker, mfc="white", ms=size, label=label, zorder=3)
