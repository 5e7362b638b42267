"""Where a training is: what its Trainer tells, and how far the open window has come."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.trainer.states import TrainerFn


def callbacks_of(trainer: Trainer) -> list[Callback]:
    """Return the callbacks of ``trainer``, the list itself; Lightning sets it where no type checker sees it."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return callbacks


def fraction_done(trainer: Trainer, epochs: float | None = None) -> float | None:
    """Return the share of training that is done, in [0, 1], or None where the Trainer has no end.

    ``epochs`` is how many of them are done, by default as many as :func:`epochs_done` says.
    """
    shares = []
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        shares.append((epochs_done(trainer) if epochs is None else epochs) / trainer.max_epochs)
    if trainer.max_steps is not None and trainer.max_steps > 0:
        shares.append(trainer.global_step / trainer.max_steps)
    return min(1.0, max(shares)) if shares else None


def epochs_done(trainer: Trainer, *, in_batch: bool = False) -> float:
    """Return how many epochs are done, with the done part of the present one.

    ``in_batch`` says that a batch is running or has just run, which a resumed Trainer's counters may not show.
    """
    batches = trainer.num_training_batches
    # A run resumed from an epoch's end still shows that epoch's batches, while the next one has not begun.
    begun = in_batch or trainer.fit_loop.epoch_progress.current.ready > trainer.current_epoch
    inside = min(1.0, (trainer.fit_loop.batch_idx + 1) / batches) if batches and begun else 0.0
    return trainer.current_epoch + inside


def batches_per_window(trainer: Trainer, stage: str, every_n_steps: int | None = None) -> int | None:
    """Return how many batches a window of ``stage`` has on this rank, or None where the data has no known length."""
    if stage == "train" and every_n_steps is not None:
        return every_n_steps * trainer.accumulate_grad_batches
    counts = {"train": trainer.num_training_batches, "val": trainer.num_val_batches, "test": trainer.num_test_batches}
    of_stage = counts[stage]
    batches = math.fsum(of_stage) if isinstance(of_stage, list) else of_stage
    return int(batches) if math.isfinite(batches) else None


def logged_step(trainer: Trainer, *, inside_batch: bool = False) -> int:
    """Return the step under which Lightning logs a window that has just closed, so that ours lies beside it.

    It counts batches that stepped, whatever the number of optimizers, and starts at 0; Lightning's own monitors of
    learning rate and throughput read the same attribute. The batch that closes a window is counted only after its hooks
    and the validation behind it (``inside_batch``); runs without training log under the full count.
    """
    stepped = trainer.fit_loop.epoch_loop._batches_that_stepped
    if inside_batch or trainer.state.fn != TrainerFn.FITTING:
        return stepped
    return max(0, stepped - 1)


def learning_rates(trainer: Trainer) -> tuple[float, ...]:
    """Return the learning rate of every parameter group of every optimizer."""
    return tuple(float(group["lr"]) for optimizer in trainer.optimizers for group in optimizer.param_groups)


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
