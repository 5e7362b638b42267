"""How wide the layers would be at a wanted saturation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning_saturation.saturation.report.report import SaturationReport


@dataclass(frozen=True)
class WidthEstimates(Mapping[str, int]):
    """Features by layer at which the measured intrinsic dimension would sit at ``target``.

    An estimate: it takes the intrinsic dimension as given, while wider layers tend to have a higher one (Shenk et
    al., figure 2), so a layer that is widened lands above the target. ``left_out`` says of which layers nothing can
    be said, and why.
    """

    target: float
    estimates: dict[str, int]
    measured: dict[str, int]
    left_out: dict[str, str]

    def __getitem__(self, layer: str) -> int:
        return self.estimates[layer]

    def __iter__(self) -> Iterator[str]:
        return iter(self.estimates)

    def __len__(self) -> int:
        return len(self.estimates)

    def __str__(self) -> str:
        lines = [
            f"Estimated features at a saturation of {self.target:g}, if the intrinsic dimension stays as measured:"
        ]
        lines += [f"  {name}: {self.measured[name]} -> {width}" for name, width in self.estimates.items()]
        return "\n".join([*lines, *(f"  {name}: no estimate ({reason})" for name, reason in self.left_out.items())])


def estimate_widths(report: SaturationReport, *, target: float) -> WidthEstimates:
    """Return ``ceil(intrinsic dimension / target)`` by layer, at least 1, where the dimension is known."""
    if not 0.0 < target <= 1.0:
        raise ValueError(f"Expected `target`, a saturation, in (0, 1], got {target}.")
    estimates, left_out = {}, {}
    for name, layer in report.layers.items():
        if name in report.output_layers:
            left_out[name] = "an output layer, its width is the task's"
        elif math.isnan(layer.intrinsic_dimension):
            left_out[name] = "nothing was measured"
        elif layer.too_few_samples:
            left_out[name] = f"{layer.samples} samples for {layer.features} features hide part of the dimension"
        else:
            # 50 / 0.2 is 250.00000000000003 in the wrong order of roundings: no feature more for that.
            estimates[name] = max(1, math.ceil(layer.intrinsic_dimension / target - 1e-9))
    measured = {name: report.layers[name].features for name in estimates}
    return WidthEstimates(target, estimates, measured, left_out)
