"""How wide the layers would be at a wanted saturation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lightning_saturation.drawing.tabulated import Table, Tabulated
from lightning_saturation.saturation.report.diagnosis import percent

if TYPE_CHECKING:
    from lightning_saturation.saturation.report.report import SaturationReport


@dataclass(frozen=True, repr=False)
class WidthEstimates(Tabulated, Mapping[str, int]):
    """Features by layer at which the measured intrinsic dimension would sit at ``target``.

    An estimate: it takes the intrinsic dimension as given, while wider layers tend to have a higher one (Shenk et
    al., figure 2), so a layer that is widened lands above the target. ``left_out`` says of which layers nothing can
    be said or nothing should be done, and why. ``weights`` are those of the tracked layers as measured and as
    estimated, as if each layer fed the next; None where the layers' shapes are unknown.
    """

    target: float
    estimates: dict[str, int]
    measured: dict[str, int]
    left_out: dict[str, str]
    weights: tuple[int, int] | None = None

    def __getitem__(self, layer: str) -> int:
        return self.estimates[layer]

    def __iter__(self) -> Iterator[str]:
        return iter(self.estimates)

    def __len__(self) -> int:
        return len(self.estimates)

    def __repr__(self) -> str:
        return f"WidthEstimates(target={self.target:g}, {dict(self.estimates)}, {len(self.left_out)} left out)"

    def _table(self) -> Table:
        title = f"Features at a saturation of {self.target:g}, if the intrinsic dimension stays as measured"
        rows = [(name, str(self.measured[name]), str(width), "") for name, width in self.estimates.items()]
        rows += [(name, "", "", f"no estimate: {reason}") for name, reason in self.left_out.items()]
        below = []
        if self.weights is not None and self.estimates:
            before, after = self.weights
            below = [f"Weights of these layers: {before:,} -> {after:,} ({after / before - 1:+.0%})"]
        return Table(title, ("layer", "features now", "estimate", ""), rows, below=below)


def estimate_widths(report: SaturationReport, *, target: float) -> WidthEstimates:
    """Return ``ceil(intrinsic dimension / target)`` by layer, at least 1, where that can be known and may help.

    A layer whose inputs leave no room for as many directions as it has features is left out: it would look empty
    however narrow it became. A layer above ``target`` is left out where nothing says that the network, or this layer,
    is too narrow: more weights would not help.
    """
    if not 0.0 < target <= 1.0:
        raise ValueError(f"Expected `target`, a saturation, in (0, 1], got {target}.")
    findings = report.diagnose().findings
    narrow = {name for f in findings if f.kind in ("too narrow", "bottleneck") for name in f.layers}
    estimates, left_out = {}, {}
    for name, layer in report.layers.items():
        # 50 / 0.2 is 250.00000000000003 in the wrong order of roundings: no feature more for that.
        known = not math.isnan(layer.intrinsic_dimension)
        width = max(1, math.ceil(layer.intrinsic_dimension / target - 1e-9)) if known else 0
        if name in report.output_layers:
            left_out[name] = "an output layer, its width is the task's"
        elif not known:
            left_out[name] = "nothing was measured"
        elif layer.too_few_samples:
            left_out[name] = f"{layer.samples} samples for {layer.features} features hide part of the dimension"
        elif layer.reach < layer.features and width < layer.features:
            left_out[name] = f"its inputs allow about {layer.reach:.0f} directions, whatever its width"
        elif width > layer.features and name not in narrow:
            used = percent(layer.saturation)
            left_out[name] = f"{used} used, and nothing says that more features would help"
        else:
            estimates[name] = width
    measured = {name: report.layers[name].features for name in estimates}
    return WidthEstimates(target, estimates, measured, left_out, _weights(report, estimates))


def _weights(report: SaturationReport, estimates: Mapping[str, int]) -> tuple[int, int] | None:
    """Return the weights of all layers as they are and with ``estimates``, as if each layer fed the next."""
    if any(math.isnan(layer.weights) for layer in report.layers.values()):
        return None
    before, after, narrowed = 0.0, 0.0, 1.0
    features = 0
    for name, layer in report.layers.items():
        own = estimates.get(name, layer.features) / layer.features
        fed = features and layer.inputs % features == 0  # also where positions were flattened into features
        before += layer.weights
        after += layer.weights * own * (narrowed if fed else 1.0)
        narrowed, features = own, layer.features
    return round(before), round(after)
