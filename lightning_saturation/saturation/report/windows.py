"""Which windows and layers a set of reports holds, lined up for drawing and judging."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from lightning_saturation.saturation.report.report import SaturationReport


def by_stage(reports: Sequence[SaturationReport]) -> dict[str, list[SaturationReport]]:
    """Return the reports of each stage, in the order given; a ``ValueError`` where there is nothing to draw."""
    stages: dict[str, list[SaturationReport]] = {}
    for report in reports:
        stages.setdefault(report.stage, []).append(report)
    if not any(report.layers for report in reports):
        raise ValueError(f"Expected `reports` to hold at least one layer, got {len(reports)} reports without any.")
    return stages


def layer_names(reports: Sequence[SaturationReport]) -> list[str]:
    """Return every layer that any report knows: those of the fullest report first, in its order."""
    fullest_first = sorted(reports, key=lambda report: -len(report.layers))
    return list(dict.fromkeys(name for report in fullest_first for name in report.layers))


def when(reports: Sequence[SaturationReport]) -> tuple[str, list[int]]:
    """Return the coarsest unit that tells the windows apart (epoch, step or window) and its value for each."""
    epochs, steps = [report.epoch for report in reports], [report.step for report in reports]
    if len(set(epochs)) == len(reports):
        return "epoch", epochs
    return ("step", steps) if len(set(steps)) == len(reports) else ("window", list(range(len(reports))))


def saturation_matrix(reports: Sequence[SaturationReport], names: Sequence[str]) -> np.ndarray:
    """Return saturation (layers, windows), float64; NaN where a layer is missing from a window."""
    columns = [report.saturation for report in reports]
    return np.array([[column.get(name, np.nan) for column in columns] for name in names], dtype=float)


def saturation_series(reports: Sequence[SaturationReport], layers: Collection[str]) -> dict[str, list[float]]:
    """Return the continuous saturation of each of ``layers``, one value for each of ``reports``; NaN where missing."""
    return {
        name: [report.layers[name].continuous_saturation if name in report.layers else math.nan for report in reports]
        for name in layers
    }


def records(stages: Mapping[str, Sequence[SaturationReport]]) -> list[dict[str, Any]]:
    """Return one plain dict per stage, window and layer; ``last`` marks the last window of each stage."""
    return [
        {**record, "last": report is reports[-1]}
        for reports in stages.values()
        for report in reports
        for record in report.to_records()
    ]
