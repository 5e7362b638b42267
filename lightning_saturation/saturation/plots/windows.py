"""Windows as pictures: saturation over layers and time, and the eigenvalues behind one of them."""

from __future__ import annotations

import math
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


def spectrum_figure(report: SaturationReport, *, most: int = 12) -> Figure:
    """Return the share of variance of every principal direction, log-log, one line per layer.

    Dots mark the intrinsic dimension. With more than ``most`` layers, ``most`` of them are drawn, evenly spread over
    the depth, and the title says so. A ``ValueError`` where no layer kept its eigenvalues.
    """
    spectra = report_spectra(report)
    if not spectra:
        raise ValueError(f"Expected a report with eigenvalues, got none in any of {len(report.layers)} layers.")
    names = canvas.thin(list(spectra), most)
    figure = canvas.new_figure(max(7.5, 5.5 + canvas.name_room(names)), max(4.2, 1.5 + canvas.layer_room(names)))
    axes = figure.subplots()
    for index, (name, colour) in enumerate(zip(names, canvas.colours(len(names)), strict=True)):
        share, layer = spectra[name], report.layers[name]
        style = canvas.LINE_STYLES[index % len(canvas.LINE_STYLES)]
        axes.loglog(range(1, len(share) + 1), share, style, color=colour, label=name)
        if not math.isnan(layer.intrinsic_dimension):
            k = min(int(layer.intrinsic_dimension), len(share))
            axes.plot([k], [share[k - 1]], "o", color=colour, ms=5)
    cut = f"{len(names)} of {len(spectra)} layers" if len(names) < len(spectra) else "all layers"
    axes.set_title(
        f"Spectrum ({report.stage}, epoch {report.epoch}, {cut}; dots: {100 * report.delta:g} % of variance)"
    )
    axes.set_xlabel("principal direction, by variance (1 = largest)")
    axes.set_ylabel("share of the layer's variance")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=canvas.LABEL_SIZE, frameon=False, title="layer")
    return figure


def report_spectra(report: SaturationReport) -> dict[str, np.ndarray]:
    """Return by layer the shares of variance, largest first, float64; without zeros and layers that have none."""
    spectra = {}
    for name, layer in report.layers.items():
        if layer.eigenvalues is None or not layer.total_variance > 0:
            continue
        values = layer.eigenvalues.double().cpu().numpy() / layer.total_variance
        # Rounding residue of a rank-deficient covariance: a cliff of twenty decades says nothing and hides the rest.
        spectra[name] = values[values > values[0] * np.finfo(np.float64).eps]
    return spectra
