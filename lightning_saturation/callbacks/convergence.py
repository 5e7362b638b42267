"""How far saturation may still move, window after window."""

from __future__ import annotations

from collections.abc import Sequence

from lightning.pytorch import Trainer

from lightning_saturation.callbacks.progress import fraction_done
from lightning_saturation.callbacks.stopping import rule_for
from lightning_saturation.functional.plateau import Plateau, PlateauRule, plateau
from lightning_saturation.report import SaturationReport, saturation_series


class Convergence:
    """The plateau of each complete window, by the rule of the stopper that watches ``name``, or by its defaults."""

    def __init__(self, name: str, stages: Sequence[str]) -> None:
        self.plateaus: dict[str, list[Plateau]] = {stage: [] for stage in stages}
        self._name = name
        self._fractions = dict.fromkeys(stages, 0.0)

    def start(self, trainer: Trainer) -> None:
        """Note where training starts, which is not its beginning in a resumed run."""
        self._fractions = dict.fromkeys(self._fractions, fraction_done(trainer) or 0.0)

    def judge(self, trainer: Trainer, reports: Sequence[SaturationReport]) -> Plateau:
        """Return the plateau of the last of ``reports``, oldest first, and keep it if that window is complete."""
        last = reports[-1]
        rule = self.rule(trainer, last.stage)
        watched = [name for name in last.layers if rule.watches(name, default=name not in last.output_layers)]
        series = saturation_series([report for report in reports if report.stage == last.stage], watched)
        result = plateau(
            series, horizon=self._windows_left(trainer, last.stage), tolerance=rule.tolerance, window=rule.window
        )
        if last.stage in self.plateaus and not last.partial:
            self.plateaus[last.stage].append(result)
            self._fractions[last.stage] = fraction_done(trainer) or 0.0
        return result

    def rule(self, trainer: Trainer, stage: str) -> PlateauRule:
        """Return the rule of the stopper in ``trainer`` that watches ``stage``, or the default one."""
        return rule_for(trainer, self._name, stage)

    def _windows_left(self, trainer: Trainer, stage: str) -> float | None:
        """Return how many windows like the last one will follow, or None where training has no end."""
        done = fraction_done(trainer)
        if done is None or done <= (before := self._fractions.get(stage, 0.0)):
            return None
        return (1 - done) / (done - before)
