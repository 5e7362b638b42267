"""Reports as one series per layer."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning_saturation.saturation.report.report import SaturationReport


def saturation_series(reports: Sequence[SaturationReport], layers: Collection[str]) -> dict[str, list[float]]:
    """Return the continuous saturation of each of ``layers``, one value for each of ``reports``; NaN where missing."""
    return {
        name: [report.layers[name].continuous_saturation if name in report.layers else math.nan for report in reports]
        for name in layers
    }
