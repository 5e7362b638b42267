"""Saturation over layers and time as a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from lightning_saturation.drawing import canvas
from lightning_saturation.drawing.labels import fitting_names
from lightning_saturation.saturation.report import windows
from lightning_saturation.saturation.report.report import SaturationReport

_MOST_TICKS = 10


def heatmap_figure(reports: Sequence[SaturationReport]) -> Figure:
    """Return saturation as colour, layers from top to bottom and windows from left to right, one panel per stage.

    Colours run from 0 to 1 whatever the data, so that the pictures of two runs can be compared; missing values are
    hatched. A ``ValueError`` where no report has a layer.
    """
    stages, names = windows.by_stage(reports), windows.layer_names(reports)
    height = max(3.0, 1.2 + canvas.layer_room(names))
    figure = canvas.new_figure(2.2 + 4.2 * len(stages) + canvas.name_room(fitting_names(names)), height)
    panels = figure.subplots(1, len(stages), squeeze=False, sharey=True)[0]
    images = [draw_heatmap(axes, same, names) for axes, same in zip(panels, stages.values(), strict=True)]
    canvas.name_layers(panels[0].yaxis, names, rotate=False)
    figure.colorbar(images[-1], ax=list(panels), label="saturation (0 to 1)", aspect=5 * height)
    return figure


def draw_heatmap(axes: Axes, reports: Sequence[SaturationReport], names: Sequence[str]) -> AxesImage:
    """Draw the windows of one stage into ``axes`` and return the image for a colour bar."""
    matrix = windows.saturation_matrix(reports, names)
    axes.patch.set(hatch="xxx", facecolor="white", edgecolor="0.6")
    # Many windows in few pixels would otherwise be smoothed, across layers as well.
    known = np.ma.masked_invalid(matrix)
    image = axes.imshow(known, vmin=0, vmax=1, cmap="viridis", aspect="auto", interpolation="nearest")
    unit, values = windows.when(reports)
    columns = range(0, len(reports), -(-len(reports) // _MOST_TICKS))  # at equal distances, unlike `canvas.thin`
    axes.set_xticks(columns, [str(values[column]) for column in columns])
    axes.set_xlabel(f"{unit} (hatched: missing)" if np.isnan(matrix).any() else unit)
    axes.set_title(f"Saturation over time ({reports[-1].stage})", fontsize=10)
    return image
