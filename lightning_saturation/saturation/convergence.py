"""How far saturation may still move, window after window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lightning.pytorch import Trainer

from lightning_saturation.saturation.report.report import SaturationReport
from lightning_saturation.saturation.report.series import saturation_series
from lightning_saturation.stopping.plateau import Plateau, plateau
from lightning_saturation.stopping.stopping import rule_for
from lightning_saturation.training.progress import fraction_done


class Judged(NamedTuple):
    """The ``plateau`` that a window ends, and the share of training ``done`` by then."""

    plateau: Plateau
    done: float | None


def judge(
    trainer: Trainer, reports: Sequence[SaturationReport], *, name: str, fractions: Mapping[str, float]
) -> Judged:
    """Return what the last of ``reports``, oldest first, says together with those before it.

    The rule is that of the stopper that watches the monitor called ``name``, or the default one; ``fractions`` says, by
    stage, what share of training was done when the window before closed.
    """
    last = reports[-1]
    rule = rule_for(trainer, name, last.stage)
    watched = [layer for layer in last.layers if rule.watches(layer, default=layer not in last.output_layers)]
    recent = [report for report in reports if report.stage == last.stage and not report.partial][-rule.window :]
    done = fraction_done(trainer)
    before = fractions.get(last.stage, 0.0)
    # How many windows like the last one will follow; None where training has no end.
    horizon = None if done is None or done <= before else (1 - done) / (done - before)
    series = saturation_series(recent, watched)
    return Judged(plateau(series, horizon=horizon, tolerance=rule.tolerance, window=rule.window), done)
