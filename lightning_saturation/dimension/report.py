"""The dimension of the data in every layer: plain data in, plain data out."""

from __future__ import annotations

import math
import statistics
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from matplotlib.figure import Figure

from lightning_saturation.capture.missing import NOT_FOLLOWED
from lightning_saturation.drawing.tabulated import Table, Tabulated, number, plain, record, shares

INPUT = "input data"
"""The name under which a profile starts with the data itself; not a name that modules have."""


@dataclass(frozen=True)
class LayerDimension:
    """How many dimensions the rows of one layer fill; numbers that are missing are NaN, and ``note`` says why.

    ``features`` is the embedding dimension. ``two_nn`` is the nonlinear dimension, from ``low`` to ``high`` with 95 %
    by the law of its ratios; ``standard_error`` is its spread over splits of the samples. ``pca`` is the number of
    principal components that hold the report's ``delta`` of the variance. ``classes`` holds the TwoNN dimension of the
    rows of each class, ``scales`` triples of points, TwoNN dimension and standard error for N, N/2, N/4, … points.
    """

    features: int
    samples: int
    two_nn: float = math.nan
    standard_error: float = math.nan
    low: float = math.nan
    high: float = math.nan
    pca: float = math.nan
    duplicates: int = 0
    skipped: int = 0
    lower_bound: bool = False
    classes: dict[str, float] = field(default_factory=dict)
    scales: tuple[tuple[int, float, float], ...] = ()
    note: str = ""

    @property
    def class_mean(self) -> float:
        """Mean TwoNN dimension over the classes; NaN without any."""
        return statistics.fmean(self.classes.values()) if self.classes else math.nan

    @property
    def class_spread(self) -> float:
        """Standard deviation of the TwoNN dimension over the classes; NaN with fewer than two."""
        return statistics.stdev(self.classes.values()) if len(self.classes) > 1 else math.nan


@dataclass(frozen=True)
class DimensionReport(Tabulated):
    """TwoNN and PCA dimension of the data in every layer, layers in the order in which they run, the input first.

    ``baseline`` holds the same layers of the network with random weights, where that was asked for. ``output_layers``
    are those that :attr:`last_hidden` skips. A ``partial`` window was cut short (a stopped or resumed epoch).
    ``followed`` is whether data were followed through a step, so that order and outputs are no guess.

    Source: Ansuini et al., *Intrinsic dimension of data representations in deep neural networks*, 2019.
    """

    layers: dict[str, LayerDimension]
    stage: str = "test"
    epoch: int = 0
    step: int = 0
    delta: float = 0.9
    output_layers: tuple[str, ...] = ()
    baseline: dict[str, LayerDimension] | None = None
    partial: bool = False
    followed: bool = True

    @property
    def two_nn(self) -> dict[str, float]:
        """TwoNN dimension by layer; NaN where it is missing."""
        return {name: layer.two_nn for name, layer in self.layers.items()}

    @property
    def when(self) -> str:
        """The window in words; ``measure_dimension`` knows none."""
        return self.stage if self.stage == "measured" else f"{self.stage}, epoch {self.epoch}, step {self.step}"

    @property
    def depth(self) -> dict[str, float]:
        """Relative depth by layer, from 0 for the first (the input) to 1 for the last."""
        last = max(len(self.layers) - 1, 1)
        return {name: index / last for index, name in enumerate(self.layers)}

    @property
    def last_hidden(self) -> str | None:
        """The last layer that is neither the input nor an output layer; None where there is none."""
        hidden = [name for name in self.layers if name != INPUT and name not in self.output_layers]
        return hidden[-1] if hidden else None

    @property
    def last_hidden_dimension(self) -> float:
        """TwoNN dimension of the last hidden layer, which the paper correlates with accuracy; NaN if missing."""
        return math.nan if self.last_hidden is None else self.layers[self.last_hidden].two_nn

    def to_records(self) -> list[dict[str, Any]]:
        """Return one plain dict per layer, those of the baseline behind; None where a number is missing."""
        records = []
        for weights, layers in (("own", self.layers), ("random", self.baseline or {})):
            for index, (name, layer) in enumerate(layers.items()):
                where = {"stage": self.stage, "epoch": self.epoch, "step": self.step, "weights": weights}
                classes = {"class_mean": plain(layer.class_mean), "class_spread": plain(layer.class_spread)}
                depth = index / max(len(layers) - 1, 1)
                records.append({**where, "layer": name, "index": index, "depth": depth, **record(layer), **classes})
        return records

    def to_state(self) -> dict[str, Any]:
        """Return a dict of scalars, tuples and dicts that ``torch.load(weights_only=True)`` accepts."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> DimensionReport:
        """Return the report that ``to_state`` described; fields that this version does not know are left out."""
        known = {key: value for key, value in state.items() if key in {f.name for f in fields(cls)}}
        for key in ("layers", "baseline"):
            if known.get(key) is not None:
                known[key] = {name: _layer(layer) for name, layer in known[key].items()}
        return cls(**{"layers": {}, **known})

    def plot(self) -> Figure:
        """Return a matplotlib figure: TwoNN and PCA dimension over relative depth, the baseline dashed."""
        from lightning_saturation.dimension.plots import dimension_figure

        return dimension_figure(self)

    def __repr__(self) -> str:
        last = number(self.last_hidden_dimension, 1)
        return f"DimensionReport({self.when}, {len(self.layers)} layers, {last} in {self.last_hidden})"

    def _table(self) -> Table:
        head = ["layer", "depth", "features", "samples", "TwoNN", "±", f"PCA {100 * self.delta:g} %"]
        head += ["random: TwoNN", "PCA", ""] if self.baseline else [""]
        rows = [self._row(name) for name in self.layers]
        ending = "" if self.last_hidden is None else f": {number(self.last_hidden_dimension, 1)} in {self.last_hidden}"
        bars = {4: shares([*self.two_nn.values()])}
        told = () if self.followed else (NOT_FOLLOWED,)
        return Table(f"Dimension of the data ({self.when}){ending}", head, rows, bars, told)

    def _row(self, name: str) -> tuple[str, ...]:
        layer = self.layers[name]
        notes = [
            "a lower bound: too few samples to show more" if layer.lower_bound else "",
            f"{layer.duplicates} duplicates dropped" if layer.duplicates else "",
            f"{layer.skipped} rows with NaN or infinity left out" if layer.skipped else "",
            f"classes {number(layer.class_mean, 1)} ± {number(layer.class_spread, 1)}" if layer.classes else "",
            layer.note,
        ]
        cells = [name, f"{self.depth[name]:.2f}", str(layer.features), str(layer.samples)]
        cells += [number(layer.two_nn, 1), number(layer.standard_error, 1), number(layer.pca, 0)]
        if self.baseline:
            random = self.baseline.get(name, LayerDimension(0, 0))
            cells += [number(random.two_nn, 1), number(random.pca, 0)]
        return (*cells, "; ".join(filter(None, notes)))


def _layer(state: dict[str, Any]) -> LayerDimension:
    known = {f.name: state[f.name] for f in fields(LayerDimension) if f.name in state}
    if "classes" in known:
        known["classes"] = {label: d for label, d in known["classes"].items() if isinstance(d, int | float)}
    return LayerDimension(**{**dict.fromkeys(("features", "samples", "duplicates", "skipped"), math.nan), **known})
