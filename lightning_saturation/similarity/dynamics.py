"""How the layers of a network approached their final form."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from matplotlib.figure import Figure

from lightning_saturation.drawing.tabulated import Table, Tabulated
from lightning_saturation.drawing.text_table import number
from lightning_saturation.similarity.matrix import SimilarityMatrix


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
        from lightning_saturation.similarity.plots import similarity_figure

        panes = {f"{100 * share:.0f} % trained": matrix for share, matrix in self.panes.items()}
        return similarity_figure(panes, row_label="layer (during training)", column_label="layer (end of training)")
