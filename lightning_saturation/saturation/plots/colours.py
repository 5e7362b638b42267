"""What each finding looks like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lightning_saturation.saturation.report.diagnosis import Diagnosis
from lightning_saturation.saturation.report.report import SaturationReport


class Look(NamedTuple):
    """Colour of a bar and what the legend calls it; lightness differs as well as hue."""

    colour: str
    label: str


FINE = Look("#5b8fc7", "nothing to flag")
OUTPUT = Look("#c3c3c3", "output layer")
LOOKS = {
    "too narrow": Look("#c1272d", "too narrow"),
    "too wide": Look("#8fb9a8", "too wide"),
    "tail": Look("#e6a83a", "does little"),
    "bottleneck": Look("#8f1d5b", "bottleneck"),
}
"""By the kind of a finding; of a layer with several the last counts. Too few samples are hatched instead."""

_SIDES = {"too narrow": 1, "too wide": -1}
"""Findings about an average colour those layers that are on its side of the threshold."""


def looks(report: SaturationReport, diagnosis: Diagnosis) -> dict[str, Look]:
    """Return how each layer's bar looks."""
    chosen = {name: OUTPUT if name in report.output_layers else FINE for name in report.layers}
    for kind, look in LOOKS.items():
        for finding in diagnosis.findings:
            if finding.kind == kind:
                side, limit = _SIDES.get(kind, 0), finding.evidence.get("threshold", 0.0)
                against = [name for name in finding.layers if side * (report.saturation[name] - limit) < 0]
                chosen |= {name: look for name in finding.layers if name in chosen and name not in against}
    return chosen


def counted(chosen: Sequence[Look]) -> list[tuple[Look, int]]:
    """Return the looks in use, in the order in which they come, and how many layers have each."""
    return [(look, sum(look == other for other in chosen)) for look in dict.fromkeys(chosen)]
