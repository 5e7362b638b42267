"""The report of one window over all layers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from lightning_saturation.capture.coverage import ENOUGH
from lightning_saturation.capture.missing import NOT_FOLLOWED
from lightning_saturation.drawing.tabulated import Table, Tabulated, number, record
from lightning_saturation.saturation.report import rules
from lightning_saturation.saturation.report.blocks import Blocks, blocks_of
from lightning_saturation.saturation.report.diagnosis import Diagnosis, listed
from lightning_saturation.saturation.report.layer import NUMBERS, LayerStatistics
from lightning_saturation.saturation.report.widths import WidthEstimates, estimate_widths


@dataclass(frozen=True)
class SaturationReport(Tabulated):
    """Saturation of every layer over one window, layers in the order in which they run.

    ``epoch`` counts from 0, ``step`` is the number of optimizer steps taken when the window closed. ``output_layers``
    are left out of the average. A ``partial`` window was cut short (a stopped or resumed epoch). ``learning_rates`` are
    those of the optimizers' parameter groups in that window. ``coverage`` is the share of the network's weights in
    these layers (parameters of two or more dimensions; of embeddings only those asked for), None where unknown.
    ``left_out`` says of tracked layers that are not among ``layers`` why, ``masked`` from which padding was left out,
    and ``followed`` whether data were followed through a step, so that order, outputs and rows are no guess.
    """

    layers: dict[str, LayerStatistics]
    stage: str = "test"
    epoch: int = 0
    step: int = 0
    delta: float = 0.99
    output_layers: tuple[str, ...] = ()
    partial: bool = False
    learning_rates: tuple[float, ...] = ()
    coverage: float | None = None
    left_out: dict[str, str] = field(default_factory=dict)
    masked: tuple[str, ...] = ()
    followed: bool = True

    @property
    def saturation(self) -> dict[str, float]:
        """Saturation by layer, in [0, 1]; NaN where it is missing."""
        return {name: layer.saturation for name, layer in self.layers.items()}

    @property
    def inner_layers(self) -> tuple[str, ...]:
        """The layers of the average: those that are no output layers and whose rows are data."""
        return tuple(
            name for name, layer in self.layers.items() if name not in self.output_layers and layer.rows != "none"
        )

    @property
    def average(self) -> float:
        """Mean saturation over the :attr:`inner_layers`; NaN where there is none.

        Source: Shenk et al., *Spectral Analysis of Latent Representations*, equation 2.
        """
        inner = [s for name in self.inner_layers if not math.isnan(s := self.layers[name].saturation)]
        return math.fsum(inner) / len(inner) if inner else math.nan

    def to_records(self) -> list[dict[str, Any]]:
        """Return one plain dict per layer, for a table or a data frame; None where a number is missing."""
        where = {"stage": self.stage, "epoch": self.epoch, "step": self.step}
        records = []
        for index, (name, layer) in enumerate(self.layers.items()):
            numbers = {**record(layer), "output": name in self.output_layers}
            records.append({**where, "layer": name, "index": index, **numbers})
        return records

    @cached_property
    def numbers(self) -> Tensor:
        """All numbers (layers, numbers) in the order of ``NUMBERS``, float64."""
        rows = [[float(getattr(layer, name)) for name in NUMBERS] for layer in self.layers.values()]
        return torch.tensor(rows, dtype=torch.float64).view(len(rows), len(NUMBERS))

    def to_state(self, *, eigenvalues: bool = True) -> dict[str, Any]:
        """Return a dict of tensors and scalars that ``torch.load(weights_only=True)`` accepts."""
        layers = {name: dict(vars(layer)) for name, layer in self.layers.items()}
        for layer in layers.values():
            kept = layer["eigenvalues"] if eigenvalues else None
            layer["eigenvalues"] = None if kept is None else kept.clone()
        return {**{key: getattr(self, key) for key in ABOUT}, "layers": layers}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> SaturationReport:
        """Return the report that ``to_state`` described.

        Fields that this version does not know are left out, numbers that are missing are NaN.
        """
        known = {key: state[key] for key in ABOUT if key in state}
        known |= {key: tuple(known[key]) for key in ("output_layers", "learning_rates", "masked") if key in known}
        layers = {name: LayerStatistics.from_numbers(layer) for name, layer in state.get("layers", {}).items()}
        return cls(layers=layers, **known)

    def by_block(self, depth: int | None = None) -> Blocks:
        """Return mean, lowest and highest saturation by block of layers, in the order in which they run.

        A block is what names begin with, up to the first number in them behind what all share (``encoder.layer.3``), or
        the first part where there is none; or up to ``depth`` parts behind what all share. Output layers and layers
        without data are in a block, and in no number of it. Raises ``ValueError`` for a ``depth`` below 1.

        >>> layer = LayerStatistics(4, 9, 1, 0.25, 0.2, 1, 1, 1, 1)
        >>> list(SaturationReport(dict.fromkeys(["net.0.a", "net.0.b", "net.1.a"], layer)).by_block())
        ['net.0', 'net.1']
        """
        return blocks_of(self, depth=depth)

    def diagnose(
        self,
        *,
        history: Sequence[SaturationReport] = (),
        average_above: float = 0.45,
        wide_below: float = 0.2,
        tail_below: float = 0.1,
        tail_layers: int = 2,
        tail_drop: float = 2.0,
        bottleneck_above: float = 0.3,
    ) -> Diagnosis:
        """Return what this window suggests about the network, the weightiest first, and one sentence: its ``verdict``.

        - *too narrow*: the average is above ``average_above``, judged at a ``delta`` of at most 0.99, for which the
          paper gives the number. With the windows of the run as ``history`` it also says whether it always was.
        - *bottleneck*: a layer is at least ``bottleneck_above`` over both neighbours.
        - *tail*: at least ``tail_layers`` layers up to the end of the network are below ``tail_below``, and a layer
          before them is at least ``tail_drop`` times as high.
        - *too wide*: the layers whose inputs have as many directions as they have features are
          below ``wide_below`` on average. The others look empty however wide they are: early convolutions, averaged
          over positions, and layers that widen.
        - *too few samples*: a layer saw no more samples than it has features.

        Output layers are compared with, never judged. A layer without a measurement, or with too few samples, never
        counts as low. Raises ``ValueError`` for thresholds outside their range.

        Source: Shenk et al., *Spectral Analysis of Latent Representations*, sections 3.4 and 3.5;
        ``docs/diagnosis.md``.
        """
        limits = rules.Limits(average_above, wide_below, tail_below, tail_layers, tail_drop, bottleneck_above)
        return rules.judge(self, history, limits)

    def suggest_widths(self, *, target: float) -> WidthEstimates:
        """Return per layer the features at which its measured intrinsic dimension would sit at saturation ``target``.

        These are estimates: the intrinsic dimension itself moves with the width. Output layers, layers without a
        measurement and layers with too few samples get none, nor do those whose inputs leave no room for as many
        directions, and those to widen where nothing says that it helps. ``weights`` is what it does to their number.
        Raises ``ValueError`` for a ``target`` outside (0, 1].

        >>> import torch
        >>> layer = LayerStatistics.from_eigenvalues(torch.ones(8), features=8, samples=100)
        >>> SaturationReport({"fc": layer}).suggest_widths(target=0.5)["fc"]
        16
        """
        return estimate_widths(self, target=target)

    def plot(self) -> Figure:
        """Return a matplotlib figure: the verdict, and a bar per layer, labelled with directions used and width."""
        from lightning_saturation.saturation.plots.verdict import verdict_figure

        return verdict_figure([self])

    def __repr__(self) -> str:
        where = f"{self.stage}, epoch {self.epoch}"
        return f"SaturationReport({where}, {len(self.layers)} layers, average {number(self.average)})"

    def __str__(self) -> str:
        blocks = self.by_block()
        if len(self.layers) <= MOST_LINES or len(blocks) > len(self.layers) / 2:
            return super().__str__()
        shown = self._table()
        noted = Counter(row[-1] for row in shown.rows if row[-1])
        more = [f"{count} layers: {note}" for note, count in noted.most_common(5)]
        told = f"{len(self.layers)} layers by block; `to_records()` has each, and so has a table in a notebook"
        return "\n".join([shown.title, *shown.above, str(blocks), *more, told, *shown.below])

    def _table(self) -> Table:
        head = ("layer", "features", "samples", "dimension", "saturation", "effective rank", "")
        rows = [_row(name, layer, name in self.output_layers) for name, layer in self.layers.items()]
        title = f"Saturation ({self.stage}, epoch {self.epoch}, step {self.step}): average {number(self.average)}"
        seen = []
        if self.coverage is not None and self.coverage < ENOUGH:
            seen = [f"Only {self.coverage:.0%} of the network's weights are in these layers"]
        kinds = {
            kind: [n for n in self.inner_layers if self.layers[n].rows == kind] for kind in ("samples", "positions")
        }
        if all(kinds.values()):
            seen.append(f"Rows are positions, not samples, in {listed(tuple(kinds['positions']))}")
        seen += [] if self.followed else [NOT_FOLLOWED]
        missing = [f"{name} is left out: {reason}" for name, reason in self.left_out.items()]
        return Table(title, head, rows, {4: list(self.saturation.values())}, seen, missing)


def _row(name: str, layer: LayerStatistics, output: bool) -> tuple[str, ...]:
    notes = [
        "output layer, not in the average" if output else "",
        "no data: one row a batch, not in the average" if layer.rows == "none" else "",
        "fewer samples than needed" if layer.too_few_samples else "",
        f"between {layer.saturation_lower:.3f} and {layer.saturation_upper:.3f}" if layer.is_bracketed else "",
        f"{layer.skipped} rows with NaN or infinity left out" if layer.skipped else "",
    ]
    return (
        name,
        str(layer.features),
        str(layer.samples),
        number(layer.intrinsic_dimension, 0),
        number(layer.saturation),
        number(layer.effective_rank, 1),
        "; ".join(filter(None, notes)),
    )


MOST_LINES = 100
"""Layers of which a text has a line each; of more it has one for each block."""

ABOUT = tuple(field.name for field in fields(SaturationReport) if field.name != "layers")
"""What a report says beyond its layers."""
