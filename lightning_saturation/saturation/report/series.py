"""Reports as one series per layer."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable

from lightning_saturation.saturation.report.report import SaturationReport
from lightning_saturation.stopping.plateau import rates_changed


def saturation_series(reports: Iterable[SaturationReport], layers: Collection[str]) -> dict[str, list[float]]:
    """Return the continuous saturation of each of ``layers`` over ``reports``, oldest first.

    A series starts over where a learning rate changed by more than 5 % from one window to the next: what comes after is
    another regime. Partial windows and missing values are left out.
    """
    complete = [report for report in reports if not report.partial]
    start = 0
    for index in range(1, len(complete)):
        if rates_changed(complete[index - 1].learning_rates, complete[index].learning_rates):
            start = index
    series: dict[str, list[float]] = {name: [] for name in layers}
    for report in complete[start:]:
        for name in layers:
            value = report.layers[name].continuous_saturation if name in report.layers else math.nan
            if not math.isnan(value):
                series[name].append(value)
    return series
