"""What a run comes to in one picture: a sentence, a bar for each layer, and whether it has settled."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from matplotlib.figure import Figure

from lightning_saturation.drawing import canvas
from lightning_saturation.drawing.metric_curve import MetricCurve
from lightning_saturation.saturation.plots.bars import FEW, bars_height, bars_legend, bars_width, draw_bars
from lightning_saturation.saturation.plots.course import draw_course
from lightning_saturation.saturation.report.report import SaturationReport
from lightning_saturation.saturation.report.windows import replay

_COURSE_WIDTH = 4.4
_HEIGHT = 3.4
_LETTER = 0.1
"""Inches that a letter of the sentence takes; names are wider than prose."""


def verdict_figure(reports: Sequence[SaturationReport], *, metric: MetricCurve | None = None) -> Figure:
    """Return the last of ``reports``, windows of one stage and oldest first, as bars under what it suggests.

    A tick at each bar is the first window. With two windows or more, the average is drawn beside it over time with
    ``metric``, and a line where the profile settled. A ``ValueError`` where the last report has no layer.
    """
    if not reports or not reports[-1].layers:
        raise ValueError(f"Expected `reports` to end with one that has layers, got {len(reports)} reports.")
    last, first = reports[-1], reports[0] if len(reports) > 1 else None
    diagnosis = last.diagnose(history=reports)
    left, over_time = bars_width(len(last.layers)), len(reports) > 1
    width = 0.6 + left + (_COURSE_WIDTH if over_time else 0)
    lines = textwrap.wrap(diagnosis.verdict, int(width / _LETTER))
    figure = canvas.new_figure(width, _HEIGHT + bars_height(list(last.layers)) + 0.2 * len(lines))
    panels = figure.subplots(
        1, 2 if over_time else 1, squeeze=False, width_ratios=[left, _COURSE_WIDTH][: 1 + over_time]
    )
    draw_bars(panels[0][0], last, first, diagnosis)
    bars_legend(panels[0][0], last, first, diagnosis)
    if over_time:
        settled = replay(reports, stage=last.stage)
        at = next((index for index, report in enumerate(reports) if report is settled), None)
        draw_course(panels[0][1], reports, metric=metric, settled=at)
    for axes in panels[0]:
        # One scale for all, whatever the data, with room above a full bar for its label.
        axes.set_ylim(0, 1.06 if len(last.layers) <= FEW else 1.16)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])
        axes.tick_params(labelsize=canvas.LABEL_SIZE)
        axes.grid(axis="y", alpha=0.3)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle("\n".join(lines), x=0.1 / width, ha="left", fontsize=11, fontweight="bold")
    return figure
