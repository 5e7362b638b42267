"""When a training window opens and closes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass
class WindowClock:
    """How far the open training window has come: an epoch, or ``every_n_steps`` optimizer steps of training.

    ``epoch`` is that of its last batch, ``batches`` counts the batches in it, ``rates`` are the learning rates with
    which it began: when it closes, schedulers have already moved on. ``whole`` says that no batch of it is missing,
    ``ended`` that its last batch was the last of an epoch, ``closed_step`` is the optimizer step at which the window
    before it closed.
    """

    every_n_steps: int | None = None
    closed_step: int = 0
    epoch: int = 0
    batches: int = 0
    whole: bool = True
    ended: bool = False
    rates: tuple[float, ...] = ()

    @property
    def is_partial(self) -> bool:
        """Whether the window, closed now, would lack batches."""
        return not (self.whole and (self.ended or self.every_n_steps is not None))

    def restart(self, step: int) -> None:
        """Begin at optimizer step ``step`` of a training that has no window yet."""
        self.closed_step, self.epoch = step, 0
        self.batches, self.whole, self.ended, self.rates = 0, True, False, ()

    def to_state(self) -> dict[str, Any]:
        """Return progress, not configuration."""
        return {name: value for name, value in vars(self).items() if name != "every_n_steps"}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up ``state``; fields that are missing or unknown leave things as they are."""
        vars(self).update({name: state[name] for name in self.to_state() if name in state})
        self.rates = tuple(self.rates)
