"""What is known at a window of those to come: how many, and whether a drop of the learning rate lies ahead."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING

from lightning.pytorch import Trainer

from lightning_saturation.stopping.plan import planned_rates, steps_ahead, steps_per_epoch
from lightning_saturation.stopping.settled import ABRUPT, SettledRule, drop_ahead, regime_begins

if TYPE_CHECKING:
    from lightning_saturation.stopping.stopping import WatchesSettling

_SOON = 20_000
"""Optimizer steps looked ahead when training starts: a fraction of a second."""


def steps_per_window(trainer: Trainer, watched: WatchesSettling, stage: str) -> int | None:
    """Return how many optimizer steps a window takes, None where that is unknown."""
    if stage == "train" and watched.every_n_train_steps is not None:
        return watched.every_n_train_steps
    per_epoch = steps_per_epoch(trainer)
    if stage == "train":
        return None if per_epoch is None else per_epoch * int(getattr(watched, "every_n_epochs", 1))
    batches = trainer.val_check_batch
    if batches is None or not math.isfinite(batches) or per_epoch is None:
        return None
    if trainer.check_val_every_n_epoch is None:
        return math.ceil(batches / trainer.accumulate_grad_batches)
    validations = max(1, int(trainer.num_training_batches // batches))
    return max(1, per_epoch // validations) * trainer.check_val_every_n_epoch


def waits(trainer: Trainer, watched: WatchesSettling, stage: str) -> bool:
    """Return whether the learning rate will fall within one window by more than 30 % of what it is now."""
    every = steps_per_window(trainer, watched, stage)
    today = watched.settling[stage][-1].learning_rates  # schedulers have moved on already
    return every is not None and drop_ahead(chain([today], planned_rates(trainer, every=every)))


def never_fires(trainer: Trainer, watched: WatchesSettling, rule: SettledRule, stage: str) -> str:
    """Return why no stop by ``rule`` is possible in what is left of training, or nothing where it is, or unknown."""
    if stage == "val" and not trainer.enable_validation:
        return "it watches validation, and there is none. Give `fit` validation data, or watch `stage='train'`."
    every, ahead = steps_per_window(trainer, watched, stage), steps_ahead(trainer)
    if not every or ahead is None:
        return ""
    needed = rule.window + rule.patience
    windows = (trainer.global_step + ahead) // every
    if windows < needed:
        return (
            f"it needs window + patience = {needed} windows, and there will be {windows}. Shorten them, lower `window`"
            " or `patience`, or train for longer."
        )
    rates = list(planned_rates(trainer, every=every, most=_SOON))
    begins = regime_begins(rates, window=rule.window)
    left = ahead // every - begins[-1] if begins[-1] else windows
    if left < needed and not _may_stop(rates, begins, needed):
        return (
            f"it waits for the last planned drop of the learning rate, after which it needs window + patience ="
            f" {needed} windows, and there will be {left}."
        )
    return ""


def _may_stop(rates: Sequence[tuple[float, ...]], begins: Sequence[int], needed: int) -> bool:
    """Return whether any window has ``needed`` ones in its regime, and no drop by 30 % of its own rate ahead."""
    steepest = [0.0] * len(rates[-1])  # by parameter group, of all falls within one window that lie ahead
    for index in reversed(range(len(rates))):
        calm = all(fall <= ABRUPT * rate for fall, rate in zip(steepest, rates[index], strict=True))
        if calm and index + 1 - begins[index] >= needed:
            return True
        steps = zip(steepest, rates[index - 1], rates[index], strict=True)
        steepest = [max(fall, before - after) for fall, before, after in steps]
    return False
