"""How far saturation may still move, window after window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lightning.pytorch import Trainer

from lightning_saturation.saturation.report.report import SaturationReport
from lightning_saturation.saturation.report.series import saturation_series
from lightning_saturation.stopping.plateau import Plateau, PlateauRule, plateau
from lightning_saturation.stopping.stopping import rule_for
from lightning_saturation.training.progress import fraction_done


class Judged(NamedTuple):
    """The ``plateau`` that a window ends, where there is one to keep, and the share of training ``done`` by then."""

    plateau: Plateau
    done: float | None


class Convergence:
    """The plateau of each complete window, by the rule of the stopper that watches ``name``, or by its defaults."""

    def __init__(self, name: str, stages: Sequence[str]) -> None:
        self.plateaus: dict[str, list[Plateau]] = {stage: [] for stage in stages}
        self._name = name
        self._fractions = dict.fromkeys(stages, 0.0)

    def start(self, trainer: Trainer) -> None:
        """Note where training starts, which is not its beginning in a resumed run."""
        self._fractions = dict.fromkeys(self._fractions, fraction_done(trainer) or 0.0)

    def judge(self, trainer: Trainer, reports: Sequence[SaturationReport]) -> Judged:
        """Return what the last of ``reports``, oldest first, says together with those before it."""
        last = reports[-1]
        rule = self.rule(trainer, last.stage)
        watched = [name for name in last.layers if rule.watches(name, default=name not in last.output_layers)]
        recent = [report for report in reports if report.stage == last.stage and not report.partial][-rule.window :]
        horizon = self._windows_left(trainer, last.stage)
        series = saturation_series(recent, watched)
        result = plateau(series, horizon=horizon, tolerance=rule.tolerance, window=rule.window)
        return Judged(result, fraction_done(trainer))

    def keep(self, stage: str, judged: Judged) -> None:
        """Keep what was judged of a complete window of ``stage``."""
        if stage in self.plateaus:
            self.plateaus[stage].append(judged.plateau)
            self._fractions[stage] = judged.done or 0.0

    def __copy__(self) -> Convergence:
        twin = Convergence(self._name, ())
        twin.plateaus = {stage: list(plateaus) for stage, plateaus in self.plateaus.items()}
        twin._fractions = dict(self._fractions)
        return twin

    def rule(self, trainer: Trainer, stage: str) -> PlateauRule:
        """Return the rule of the stopper in ``trainer`` that watches ``stage``, or the default one."""
        return rule_for(trainer, self._name, stage)

    def _windows_left(self, trainer: Trainer, stage: str) -> float | None:
        """Return how many windows like the last one will follow, or None where training has no end."""
        done = fraction_done(trainer)
        if done is None or done <= (before := self._fractions.get(stage, 0.0)):
            return None
        return (1 - done) / (done - before)
