"""Which windows and layers a set of reports holds, lined up for drawing and judging, and when they have settled."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_saturation.stopping.settled import SettledRule, Settling, profile_changes, settled

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


def settling(reports: Sequence[SaturationReport], rule: SettledRule) -> Settling:
    """Return what the last of ``reports``, complete windows of one stage, oldest first, says by ``rule``."""
    last = reports[-1]
    recent = reports[-(2 * rule.window + rule.patience) :]  # on all that the last windows are compared with
    rates = [report.learning_rates for report in recent]
    series = saturation_series(recent, _watched(last, rule))
    return rule.judge(profile_changes(series, window=rule.window, learning_rates=rates), last.learning_rates)


def replay(
    reports: Sequence[SaturationReport],
    *,
    stage: str = "train",
    window: int = 5,
    tolerance: float = 0.01,
    patience: int = 3,
    layers: Sequence[str] | None = None,
) -> SaturationReport | None:
    """Return the report of the window at which training would have stopped, None where it would have gone on.

    Of ``reports``, those of a finished run, the complete ones of ``stage`` count. Arguments are those of
    :class:`SaturationStopping`; drops of the learning rate are known from the reports, so that one which was still to
    come is waited for. ``replay(monitor.reports).epoch`` is the epoch after which it would have stopped.

    Raises ``ValueError`` for arguments out of range, and for ``layers`` that no report has, ``TypeError`` for what are
    no reports.
    """
    if not isinstance(reports, Sequence):
        raise TypeError(f"Expected `reports`, such as those of `monitor.reports`, got {type(reports).__name__}.")
    rule = SettledRule(window, tolerance, patience, None if layers is None else tuple(layers))
    complete = [report for report in reports if report.stage == stage and not report.partial]
    if not complete:
        return None
    watched = _watched(complete[-1], rule)
    if not watched and layers is not None:
        raise ValueError(f"Expected `layers` to name some of {list(complete[-1].layers)}, got {layers!r}.")
    index = settled(
        saturation_series(complete, watched),
        window=rule.window,
        tolerance=rule.tolerance,
        patience=rule.patience,
        learning_rates=[report.learning_rates for report in complete],
    )
    return None if index is None else complete[index]


def _watched(report: SaturationReport, rule: SettledRule) -> list[str]:
    return [name for name in report.layers if rule.watches(name, default=name not in report.output_layers)]
