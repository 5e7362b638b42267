"""When a training window opens and closes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass
class WindowClock:
    """How far the open training window has come: an epoch, or ``every_n_steps`` optimizer steps of training.

    ``epoch`` is that of its last batch, ``batches`` counts the batches in it, ``rates`` are the learning rates with
    which it began: when it closes, schedulers have already moved on. ``whole`` says that no batch of it is missing,
    ``ended`` that its last batch was the last of an epoch. ``closed_step`` and ``closed_epoch`` are those of the window
    before it.
    """

    every_n_steps: int | None = None
    closed_step: int = 0
    closed_epoch: int = -1
    epoch: int = 0
    batches: int = 0
    whole: bool = True
    ended: bool = False
    rates: tuple[float, ...] = ()

    def begin_batch(self, *, epoch: int, index: int, rates: tuple[float, ...]) -> None:
        """Note that batch ``index`` of ``epoch`` runs next."""
        if not self.batches:
            self.rates = rates
            self.whole &= index == 0 or self.every_n_steps is not None
        self.epoch = epoch

    def end_batch(self, *, last: bool) -> None:
        """Note that the batch has run, and whether it was the ``last`` of its epoch."""
        self.batches += 1
        self.ended = last

    def steps_are_due(self, step: int) -> bool:
        """Return whether a window of steps is to be closed at optimizer step ``step``."""
        return self.every_n_steps is not None and step - self.closed_step >= self.every_n_steps

    @property
    def counts_epochs(self) -> bool:
        """Whether a window is an epoch."""
        return self.every_n_steps is None

    @property
    def is_partial(self) -> bool:
        """Whether the window, closed now, would lack batches."""
        return not (self.whole and (self.ended or not self.counts_epochs))

    def close(self, step: int) -> None:
        """Note that the window was closed at optimizer step ``step``; the next one begins."""
        self.closed_step, self.closed_epoch = step, self.epoch
        self.batches, self.whole, self.ended = 0, True, False

    def restart(self, step: int) -> None:
        """Begin at optimizer step ``step`` of a training that has no window yet."""
        self.closed_step, self.closed_epoch, self.epoch = step, -1, 0
        self.batches, self.whole, self.ended, self.rates = 0, True, False, ()

    def to_state(self) -> dict[str, Any]:
        """Return progress, not configuration."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "every_n_steps"}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up ``state``; fields that are missing or unknown leave things as they are."""
        for field in fields(self):
            if field.name != "every_n_steps" and field.name in state:
                setattr(self, field.name, state[field.name])
        self.rates = tuple(self.rates)
