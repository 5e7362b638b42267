"""How alike layers are, and how they approached their final form: plain data in, plain data out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from torch import Tensor

from lightning_saturation.drawing import canvas
from lightning_saturation.drawing.labels import fitting_names
from lightning_saturation.drawing.tabulated import Table, Tabulated, number, plain

_TITLES = {
    "svcca": "SVCCA similarity",
    "pwcca": "projection-weighted CCA similarity",
    "cka": "linear CKA",
    "debiased_cka": "linear CKA, debiased",
    "procrustes": "Procrustes distance, normalised",
    "dft_cca": "DFT-CCA similarity",
}


@dataclass(frozen=True, repr=False)
class SimilarityMatrix(Tabulated):
    """Similarity (rows, columns) of every layer of one network, ``rows``, with every layer of another, ``columns``.

    ``values`` is float64 on the CPU, NaN where it is missing; under ``method`` "procrustes" it is a distance.
    ``samples`` counts what a value rests on (positions, where these are samples: of the largest map); ``state_bytes``
    is what the sums took at most at a time.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: Tensor
    method: str
    samples: int
    state_bytes: int = 0

    def __getitem__(self, pair: tuple[str, str]) -> float:
        """Return the similarity of a row's layer and a column's."""
        return float(self.values[self.rows.index(pair[0]), self.columns.index(pair[1])])

    @property
    def diagonal(self) -> dict[str, float]:
        """Similarity of every layer with the layer of the same name on the other side."""
        return {name: self[name, name] for name in self.rows if name in self.columns}

    def to_records(self) -> list[dict[str, Any]]:
        """Return one plain dict per pair, for a table or a data frame; None where a value is missing."""
        return [
            {"row": row, "column": column, "method": self.method, "similarity": plain(value)}
            for row, line in zip(self.rows, self.values.tolist(), strict=True)
            for column, value in zip(self.columns, line, strict=True)
        ]

    def __repr__(self) -> str:
        return f"SimilarityMatrix({self.method}, {len(self.rows)} × {len(self.columns)} layers, {self.samples} samples)"

    def _table(self) -> Table:
        is_distance = self.method == "procrustes"
        rows, best = [], []
        for name, line in zip(self.rows, self.values.tolist(), strict=True):
            known = {column: value for column, value in zip(self.columns, line, strict=True) if not math.isnan(value)}
            closest = (min if is_distance else max)(known, key=known.__getitem__, default=None)
            best.append(math.nan if closest is None else known[closest])
            same = number(self[name, name]) if name in self.columns else ""
            rows.append((name, number(best[-1]), same, closest or ""))
        measure = "distance" if is_distance else "similarity"
        title = f"{measure.capitalize()} of layers ({self.method}, {self.samples} samples)"
        head = ("layer", measure, "of the same name", "layer most like it")
        return Table(title, head, rows, {} if is_distance else {1: best})

    def plot(self, *, row_label: str = "layer", column_label: str = "layer") -> Figure:
        """Return a matplotlib figure of the matrix, the first layers at the top left."""
        return similarity_figure({"": self}, row_label=row_label, column_label=column_label)


@dataclass(frozen=True, repr=False)
class LearningDynamics(Tabulated):
    """Matrices of the layers during training (rows) and at its end (columns), by share of training done, and the series
    of each layer's similarity with itself one window earlier.

    Source: Raghu et al., *SVCCA*, section 4.1 and figure 4.
    """

    panes: dict[float, SimilarityMatrix]
    series: dict[str, list[float]] = field(default_factory=dict)
    epochs: list[int] = field(default_factory=list)

    def to_records(self) -> list[dict[str, Any]]:
        """Return one plain dict per pane and pair of layers."""
        return [
            {"trained": share, "layer": record["row"], "final_layer": record["column"], **record}
            for share, matrix in self.panes.items()
            for record in matrix.to_records()
        ]

    def __repr__(self) -> str:
        return (
            f"LearningDynamics({', '.join(f'{share:.0%}' for share in self.panes)} trained, {len(self._names)} layers)"
        )

    @property
    def _names(self) -> list[str]:
        return list(dict.fromkeys(name for matrix in self.panes.values() for name in matrix.diagonal))

    def _table(self) -> Table:
        own = {
            share: [matrix.diagonal.get(name, math.nan) for name in self._names] for share, matrix in self.panes.items()
        }
        rows = [(name, *map(number, values), "") for name, *values in zip(self._names, *own.values(), strict=True)]
        bars = dict(enumerate(own.values(), start=1))
        head = ("layer", *(f"{share:.0%} trained" for share in own), "")
        return Table("Similarity of each layer with itself at the end of training", head, rows, bars)

    def plot(self) -> Figure:
        """Return a matplotlib figure with one pane per share of training."""
        panes = {f"{100 * share:.0f} % trained": matrix for share, matrix in self.panes.items()}
        return similarity_figure(panes, row_label="layer (during training)", column_label="layer (end of training)")


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
