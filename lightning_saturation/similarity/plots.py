"""Similarities between layers as pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from lightning_saturation.drawing import canvas
from lightning_saturation.drawing.labels import fitting_names

if TYPE_CHECKING:
    from lightning_saturation.similarity.report import SimilarityMatrix

_TITLES = {
    "svcca": "SVCCA similarity",
    "pwcca": "projection-weighted CCA similarity",
    "cka": "linear CKA",
    "debiased_cka": "linear CKA, debiased",
    "procrustes": "Procrustes distance, normalised",
    "dft_cca": "DFT-CCA similarity",
}


def similarity_figure(
    panes: Mapping[str, SimilarityMatrix], *, row_label: str = "layer", column_label: str = "layer"
) -> Figure:
    """Return layers × layers matrices side by side under their titles, the first layers at the top left.

    Colours run from 0 to 1 whatever the data (Procrustes distances to 2), so that panes and runs can be compared;
    missing values are hatched. A ``ValueError`` without any matrix.

    Source: Raghu et al., *SVCCA*, figure 4.
    """
    if not panes:
        raise ValueError("Expected at least one matrix to draw, got none.")
    first = next(iter(panes.values()))
    most = max(20, canvas.MOST_NAMES // len(panes))
    side = [max(1.6, canvas.layer_room(names, most=most)) for names in (first.columns, first.rows)]
    width = canvas.name_room(fitting_names(first.rows)) + len(panes) * (side[0] + 0.3) + 1.4
    figure = canvas.new_figure(width, side[1] + canvas.name_room(fitting_names(first.columns)) + 0.9)
    axes = figure.subplots(1, len(panes), squeeze=False, sharey=True)[0]
    images = [_draw(pane, matrix, title) for pane, (title, matrix) in zip(axes, panes.items(), strict=True)]
    for pane, matrix in zip(axes, panes.values(), strict=True):
        canvas.name_layers(pane.xaxis, matrix.columns, rotate=True, most=most)
        pane.set_xlabel(column_label)
    canvas.name_layers(axes[0].yaxis, first.rows, rotate=False, most=most)
    axes[0].set_ylabel(row_label)
    figure.colorbar(images[-1], ax=list(axes), label=_TITLES[first.method], aspect=12 * side[1])
    return figure


def _draw(axes: Axes, matrix: SimilarityMatrix, title: str) -> AxesImage:
    values = matrix.values.numpy()
    axes.patch.set(hatch="xxx", facecolor="white", edgecolor="0.6")
    largest = 2 if matrix.method == "procrustes" else 1
    image = axes.imshow(np.ma.masked_invalid(values), vmin=0, vmax=largest, cmap="magma", aspect="auto")
    axes.set_title(title, fontsize=10)
    return image
