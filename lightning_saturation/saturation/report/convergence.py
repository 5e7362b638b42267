"""When the profile of a run has settled, window after window or afterwards."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_saturation.saturation.report.report import SaturationReport
from lightning_saturation.saturation.report.windows import saturation_series
from lightning_saturation.stopping.settled import SettledRule, Settling, profile_changes, settled


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
