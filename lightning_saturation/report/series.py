"""Reports as one series per layer."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable

from lightning_saturation.report.report import SaturationReport

# Schedules that move the learning rate a little every window would otherwise never let a series grow.
_SAME_RATE = 0.05


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


def rates_changed(before: tuple[float, ...], after: tuple[float, ...]) -> bool:
    """Return whether any learning rate changed by more than 5 %, or their number."""
    if len(before) != len(after):
        return True
    return any(abs(a - b) > _SAME_RATE * max(abs(a), abs(b)) for a, b in zip(before, after, strict=True))
