"""What a monitor of similarity remembers of its windows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from lightning_saturation.stopping.settled import SettledRule, Settling, is_drop


@dataclass(frozen=True)
class History:
    """How alike each layer was to itself one window earlier (``series``), and what each window said of settling.

    ``rates`` are the last window's learning rates, ``since`` is the first window after they fell abruptly.
    """

    series: dict[str, list[float]] = field(default_factory=dict)
    epochs: list[int] = field(default_factory=list)
    settling: list[Settling] = field(default_factory=list)
    rates: tuple[float, ...] = ()
    since: int = 0

    def with_window(
        self, epoch: int, values: Mapping[str, float], rates: tuple[float, ...], rule: SettledRule
    ) -> History:
        """Return the history with one more window; the first ``rule.window`` of a regime say nothing yet."""
        since = len(self.epochs) if self.rates and is_drop(self.rates, rates, self.rates) else self.since
        longer = {name: [*self.series.get(name, ()), value] for name, value in values.items()}
        series = longer | {name: old for name, old in self.series.items() if name not in values}
        watched = [each for layer, each in series.items() if rule.watches(layer)]
        count = len(self.epochs) + 1
        changes = [_mean_change(watched, index, count) for index in range(count)]
        settling = rule.judge(changes[since + rule.window :], rates)._replace(change=changes[-1])
        return History(series, [*self.epochs, epoch], [*self.settling, settling], rates, since)

    def to_state(self) -> dict[str, Any]:
        """Return plain lists and dicts."""
        settling = [tuple(each) for each in self.settling]
        return {**vars(self), "settling": settling, "rates": list(self.rates)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> History:
        """Return the history that ``to_state`` described, as far as ``state`` has it."""
        known = {each.name: state[each.name] for each in fields(cls) if each.name in state}
        settling, rates = [Settling(*each) for each in known.pop("settling", ())], tuple(known.pop("rates", ()))
        return cls(**known, settling=settling, rates=rates)


def _mean_change(series: Sequence[Sequence[float]], index: int, count: int) -> float:
    """Return the mean of 1 − similarity in window ``index``, over the ``series`` that have all ``count`` of them."""
    made = [1 - values[index] for values in series if len(values) == count and not math.isnan(values[index])]
    return math.fsum(made) / len(made) if made else math.nan
