"""What the user's own module logs, epoch by epoch: saturation is read beside the task's metric."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Trainer

from lightning_saturation.drawing.metric_curve import MetricCurve


class TaskMetrics:
    """Every scalar in ``trainer.callback_metrics`` at the end of each epoch, but those of monitors.

    Lightning keeps a value until there is a new one: a metric that is logged in every other epoch is repeated in
    between.
    """

    def __init__(self) -> None:
        self._values: dict[str, dict[int, float]] = {}
        self._steps: dict[int, int] = {}

    def take(self, trainer: Trainer, epoch: int, *, without: tuple[str, ...]) -> None:
        """Take what was logged by the end of ``epoch``, but keys that begin with one of ``without``.

        What was taken for that epoch before is replaced: a module may log in its own hooks, after those of callbacks.
        """
        self._steps[epoch] = trainer.global_step
        for key, value in trainer.callback_metrics.items():
            if not key.startswith(without) and value.numel() == 1:
                self._values.setdefault(key, {})[epoch] = float(value)

    def curve(self, name: str | None = None) -> MetricCurve | None:
        """Return the metric called ``name``; with None the likeliest to be the task's, or None where there is none.

        Raises ``ValueError`` for a name that was not logged.
        """
        if name is None:
            name = min(self._values, key=_rank, default=None)
            if name is None:
                return None
        if name not in self._values:
            raise ValueError(
                f"Expected `metric` to be logged at the end of epochs, {list(self._values)}, got {name!r}."
            )
        values = self._values[name]
        return MetricCurve(
            name, list(values), [self._steps.get(epoch, epoch) for epoch in values], list(values.values())
        )

    def to_state(self) -> dict[str, Any]:
        """Return a dict that ``torch.load(weights_only=True)`` accepts."""
        return {"values": {key: dict(values) for key, values in self._values.items()}, "steps": dict(self._steps)}

    def load_state(self, state: Any) -> None:
        """Take up what ``to_state`` returned; fields may be missing."""
        known = state if isinstance(state, Mapping) else {}
        self._values = {key: dict(values) for key, values in known.get("values", {}).items()}
        self._steps = dict(known.get("steps", {}))


def _rank(key: str) -> tuple[bool, bool, bool]:
    """Return what sorts accuracies first and losses last, those of validation before those of training."""
    return ("acc" not in key.lower(), "loss" in key.lower(), "val" not in key.lower())
