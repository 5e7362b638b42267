"""Whether two networks learned the same units: plain data in, plain data out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from lightning_saturation.drawing.tabulated import Table, Tabulated
from lightning_saturation.matching.lasso import SparseMapping
from lightning_saturation.matching.plots import loss_figure, match_figure
from lightning_saturation.matching.units import Matching


@dataclass(frozen=True, repr=False)
class LayerMatch:
    """One layer of two networks: correlations of their units, partners, and how well few units predict one.

    ``within`` holds each network's correlations with itself, ``between`` (units, units) those of the first with the
    second; ``bipartite`` and ``semi`` say which units go together; ``mapping`` predicts the second from the first.
    """

    within: tuple[Tensor, Tensor]
    between: Tensor
    bipartite: Matching
    semi: Matching
    mapping: SparseMapping
    samples: int

    @property
    def order(self) -> tuple[Tensor, Tensor]:
        """Units of the first and of the second network as matched pairs, those that correlate most first."""
        paired = (self.bipartite.y_partner >= 0).nonzero().flatten()
        first = paired[self.bipartite.y_correlation[paired].argsort(descending=True)]
        return first, self.bipartite.y_partner[first]

    def __repr__(self) -> str:
        mean = float(self.bipartite.y_correlation.nanmean())
        return f"LayerMatch({len(self.between)} units, mean correlation {mean:.3f}, {self.samples} samples)"

    def plot(self, *, title: str = "") -> Figure:
        """Return a matplotlib figure: correlations in natural and in matched order, and those of the pairs."""
        return match_figure(self, title=title)


@dataclass(frozen=True)
class ConvergentLearning(Tabulated):
    """The matches of all layers that two networks share, in the order in which they run.

    Source: Li et al., *Convergent learning*, 2016.
    """

    layers: dict[str, LayerMatch]

    def to_records(self) -> list[dict[str, Any]]:
        """Return one plain dict per layer: mean correlations by matching, and the loss for each decay (table 1)."""
        records = []
        for name, match in self.layers.items():
            losses = zip(match.mapping.decay.tolist(), match.mapping.loss.tolist(), strict=True)
            records.append(
                {
                    "layer": name,
                    "units": len(match.between),
                    "bipartite": float(match.bipartite.y_correlation.nanmean()),
                    "semi": float(match.semi.y_correlation.mean()),
                    "semi, backwards": float(match.semi.x_correlation.mean()),
                    **{f"loss at decay {decay:g}": loss for decay, loss in losses},
                }
            )
        return records

    def pairs(self, layer: str) -> list[dict[str, Any]]:
        """Return one plain dict per matched pair of units of ``layer``, those that correlate most first."""
        match = self.layers[layer]
        first, second = match.order
        values = match.between[first, second]
        best = match.semi.y_correlation[first]
        columns = (t.tolist() for t in (first, second, values, match.semi.y_partner[first], best))
        keys = ("unit", "partner", "correlation", "best", "best correlation")
        return [dict(zip(keys, row, strict=True)) for row in zip(*columns, strict=True)]

    def plot(self) -> Figure:
        """Return a matplotlib figure of the sparse-mapping loss over decay, a line per layer."""
        return loss_figure(self)

    def __repr__(self) -> str:
        return f"ConvergentLearning({len(self.layers)} layers: {', '.join(self.layers)})"

    def _table(self) -> Table:
        records = self.to_records()
        rows = [[f"{v:.3f}" if isinstance(v, float) else str(v) for v in (*r.values(), "")] for r in records]
        # What is last in a table is flush left, as words are: here there are none.
        head = [*(records[0] if records else ("layer",)), ""]
        return Table("Units of two networks matched", head, rows, {2: [record["bipartite"] for record in records]})
