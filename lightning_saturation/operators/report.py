"""The spectra of a model's layers as operators, at one moment of training."""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass, field, fields
from typing import Any

from matplotlib.figure import Figure

from lightning_saturation.drawing.tabulated import Table, Tabulated, columns, plain, record
from lightning_saturation.operators.histogram import Histogram

_DERIVED = ("spectral_norm", "frobenius_norm", "stable_rank")
_TOLD = ("structural_zeros", "trace", "cdf_error", "probes", "degree", "resolution", "products")
_NOT_SAVED = "its histogram was not saved whole"
_DECAY = ("exponent", "first_rank", "last_rank", "r_squared")


@dataclass(frozen=True, eq=False)
class SpectrumReport(Tabulated):
    """Eigenvalue histograms of layers as linear operators, layers in the order in which they first ran.

    ``missing`` says, by layer, why there is no histogram; nothing stands in for it. ``input_shapes`` are without batch
    dimension. ``epoch`` counts completed epochs, so that 0 is the untrained network, ``step`` optimizer steps.
    """

    layers: dict[str, Histogram]
    missing: dict[str, str] = field(default_factory=dict)
    input_shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    epoch: int = 0
    step: int = 0
    learning_rates: tuple[float, ...] = ()

    def to_records(self) -> list[dict[str, Any]]:
        """Return one plain dict per layer, for a table or a data frame; None where a number is missing."""
        where = {"epoch": self.epoch, "step": self.step}
        records = []
        for name, histogram in self.layers.items():
            decay = zip(_DECAY, astuple(histogram.decay), strict=True)
            numbers = {
                **record(histogram),
                "largest_eigenvalue": plain(histogram.largest),
                **{key: plain(getattr(histogram, key)) for key in _DERIVED},
                **{f"decay_{key}": plain(value) for key, value in decay},
            }
            records.append({**where, "layer": name, **numbers})
        nothing = dict.fromkeys((*columns(Histogram), "largest_eigenvalue", *_DERIVED, *map("decay_{}".format, _DECAY)))
        for name, reason in self.missing.items():
            records.append({**where, "layer": name, **nothing, "note": reason})
        return records

    def to_state(self) -> dict[str, Any]:
        """Return a dict of tensors and scalars that ``torch.load(weights_only=True)`` accepts."""
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**own, "layers": {name: dict(vars(histogram)) for name, histogram in self.layers.items()}}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> SpectrumReport:
        """Return the report that ``to_state`` described; fields that this version does not know are left out."""
        known = {f.name: state[f.name] for f in fields(cls) if f.name in state}
        for key, kind in (("missing", str), ("input_shapes", list | tuple)):
            known[key] = {name: value for name, value in known.get(key, {}).items() if isinstance(value, kind)}
        layers = {name: _histogram(numbers) for name, numbers in state.get("layers", {}).items()}
        known["missing"] |= {name: _NOT_SAVED for name, histogram in layers.items() if histogram is None}
        return cls(**{**known, "layers": {name: it for name, it in layers.items() if it is not None}})

    def plot(self) -> Figure:
        """Return a matplotlib figure with a histogram for each layer, of at most twelve."""
        from lightning_saturation.operators.plots import histogram_figure

        return histogram_figure(self)

    def __repr__(self) -> str:
        missing = f", {len(self.missing)} missing" if self.missing else ""
        return f"SpectrumReport(epoch {self.epoch}, step {self.step}, {len(self.layers)} layers{missing})"

    def _table(self) -> Table:
        head = ("layer", "size", "λ max", "stable rank", "decay", "method", "")
        rows = []
        for name, histogram in self.layers.items():
            decay = histogram.decay
            exponent = (
                "unresolved" if math.isnan(decay.exponent) else f"{decay.exponent:.2f} (R² {decay.r_squared:.2f})"
            )
            numbers = (f"{histogram.size}", f"{histogram.largest:.4g}", f"{histogram.stable_rank:.1f}", exponent)
            rows.append((name, *numbers, histogram.method, histogram.note))
        rows += [(name, "", "", "", "", "", f"missing: {reason}") for name, reason in self.missing.items()]
        ranks = [histogram.stable_rank / histogram.size for histogram in self.layers.values()]
        bars = {3: [*ranks, *len(self.missing) * [math.nan]]}
        return Table(f"Spectra of layers as operators (epoch {self.epoch}, step {self.step})", head, rows, bars)


def _histogram(state: dict[str, Any]) -> Histogram | None:
    known = {f.name: state.get(f.name, math.nan) for f in fields(Histogram) if f.name in state or f.name in _TOLD}
    try:
        return Histogram(**known) if "multiplicity" in known else None
    except TypeError:  # what the others are read off is missing, and nothing could stand in for it
        return None
