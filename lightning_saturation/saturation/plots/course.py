"""Whether the network has settled: average saturation and the task's metric over time."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from lightning_saturation.drawing import canvas
from lightning_saturation.drawing.metric_curve import MetricCurve
from lightning_saturation.saturation.plots.bars import FINE
from lightning_saturation.saturation.report import windows
from lightning_saturation.saturation.report.report import SaturationReport

METRIC_COLOUR = "#6a6a6a"


def draw_course(
    axes: Axes, reports: Sequence[SaturationReport], *, metric: MetricCurve | None, settled: int | None
) -> None:
    """Draw the average of ``reports`` and ``metric``, and the moment of report number ``settled``, into ``axes``."""
    unit, moments = windows.when(reports)
    (average,) = axes.plot(moments, [r.average for r in reports], color=FINE.colour, lw=2, label="average saturation")
    axes.set_xlabel(unit, fontsize=canvas.LABEL_SIZE)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    lines = [average]
    panel = None
    if metric is not None and unit in ("epoch", "step"):
        panel, line = _draw_metric(axes, metric, metric.epochs if unit == "epoch" else metric.steps)
        lines.append(line)
    if settled is not None:
        lines.append(axes.axvline(moments[settled], color="black", ls=":", label="settled"))
    answer = "not yet" if settled is None else f"from {unit} {moments[settled]} on"
    axes.set_title(f"Has it settled? {answer.capitalize()}", fontsize=9, loc="left")
    (panel or axes).legend(handles=lines, loc="best", fontsize=canvas.LABEL_SIZE, framealpha=0.8, edgecolor="white")


def _draw_metric(axes: Axes, metric: MetricCurve, moments: Sequence[int]) -> tuple[Axes, Line2D]:
    known = [value for value in metric.values if math.isfinite(value)]
    share = all(0 <= value <= 1 for value in known)
    panel = axes if share else axes.twinx()
    (line,) = panel.plot(moments, metric.values, color=METRIC_COLOUR, lw=1.4, label=metric.name)
    if not share:
        panel.tick_params(labelsize=canvas.LABEL_SIZE, colors=METRIC_COLOUR)
        panel.spines["top"].set_visible(False)
        line.set_label(f"{metric.name} (right)")
    return panel, line
