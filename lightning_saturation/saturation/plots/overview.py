"""Profile and history in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightning_saturation.drawing import canvas
from lightning_saturation.saturation.plots.heatmap import draw_heatmap
from lightning_saturation.saturation.plots.profile import draw_profile, saturation_label
from lightning_saturation.saturation.report import windows
from lightning_saturation.saturation.report.report import SaturationReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def overview_figure(reports: Sequence[SaturationReport]) -> Figure:
    """Return the profile beside the heatmap, both with the layers from top to bottom, one row of panels per stage.

    A ``ValueError`` where no report has a layer.
    """
    stages, names = windows.by_stage(reports), windows.layer_names(reports)
    height = max(4.0, 1.6 + canvas.layer_room(names))
    figure = canvas.new_figure(11.5 + canvas.name_room(names), height * len(stages))
    panels = figure.subplots(len(stages), 3, squeeze=False, width_ratios=[5, 4, 1])
    for (left, right, legend), same_stage in zip(panels, stages.values(), strict=True):
        right.sharey(left)
        draw_profile(left, same_stage, names, across=False)
        image = draw_heatmap(right, same_stage, names)
        left.set_ylim(len(names) - 0.5, -0.5)
        left.set_xlabel(saturation_label(same_stage[-1]))
        canvas.name_layers(left.yaxis, names, rotate=False)
        right.tick_params(labelleft=False)
        figure.colorbar(image, ax=right, label="saturation (0 to 1)", aspect=5 * height)
        legend.set_axis_off()
        legend.legend(*left.get_legend_handles_labels(), loc="upper left", fontsize=canvas.LABEL_SIZE, frameon=False)
    return figure
