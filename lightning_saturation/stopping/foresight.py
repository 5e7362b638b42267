"""What is known at a window of those to come: how many, and which learning rates are planned.

These are found on copies of the Trainer's schedulers.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.seed import isolate_rng

from lightning_saturation.stopping.settled import ABRUPT, SettledRule, drop_ahead, regime_begins
from lightning_saturation.training.progress import epochs_done, learning_rates

if TYPE_CHECKING:
    from lightning_saturation.stopping.stopping import WatchesSettling

MOST_STEPS = 200_000
"""Optimizer steps looked ahead at most: a few seconds, where a scheduler steps with each."""

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


def steps_per_epoch(trainer: Trainer) -> int | None:
    """Return how many optimizer steps an epoch takes, None where its length is unknown."""
    batches = trainer.num_training_batches
    return math.ceil(batches / trainer.accumulate_grad_batches) if math.isfinite(batches) else None


def steps_ahead(trainer: Trainer) -> int | None:
    """Return how many optimizer steps are left, None where training has no known end."""
    left = []
    per_epoch = steps_per_epoch(trainer)
    if trainer.max_epochs is not None and trainer.max_epochs > 0 and per_epoch is not None:
        left.append(round((trainer.max_epochs - epochs_done(trainer)) * per_epoch))
    if trainer.max_steps is not None and trainer.max_steps > 0:
        left.append(trainer.max_steps - trainer.global_step)
    return max(0, min(left)) if left else None


def planned_rates(trainer: Trainer, *, every: int, most: int = MOST_STEPS) -> Iterator[tuple[float, ...]]:
    """Yield the learning rates as they are, by parameter group, and those after each ``every`` steps to the end.

    At the end of an epoch Lightning has stepped the schedulers already: the first are those of the window to come. The
    schedulers are copied, with optimizers that hold rates and no parameters; what the Trainer holds is never
    stepped. A scheduler that waits for a metric plans nothing, and nor does a training without an end. No more than
    ``most`` steps are looked ahead.

    Whatever a scheduler raises when it is copied or stepped passes through: :class:`SaturationStopping` says so, and
    does not wait.
    """
    yield learning_rates(trainer)
    configs = [config for config in trainer.lr_scheduler_configs if not config.reduce_on_plateau]
    ahead = steps_ahead(trainer)
    if not configs or ahead is None:
        return
    optimizers, schedulers = _copies(trainer, [config.scheduler for config in configs])
    by_step = any(config.interval == "step" for config in configs)
    per_epoch = steps_per_epoch(trainer) or MOST_STEPS + 1
    epochs, inside = divmod(epochs_done(trainer), 1)
    in_epoch, taken = round(inside * per_epoch), 0
    while taken < min(ahead, most):
        if in_epoch >= per_epoch:
            in_epoch, epochs = 0, epochs + 1
            _step(schedulers, configs, "epoch", int(epochs))
        if taken and taken % every == 0:
            yield tuple(float(group["lr"]) for optimizer in optimizers for group in optimizer.param_groups)
        strides = 1 if by_step else min(every - taken % every, per_epoch - in_epoch)
        taken, in_epoch = taken + strides, in_epoch + strides
        if by_step:
            _step(schedulers, configs, "step", taken)


def _step(schedulers: list[Any], configs: list[Any], interval: str, count: int) -> None:
    with warnings.catch_warnings(), isolate_rng(include_cuda=False):
        warnings.simplefilter("ignore")  # about an optimizer that takes no steps
        for scheduler, config in zip(schedulers, configs, strict=True):
            if config.interval == interval and count % config.frequency == 0:
                scheduler.step()


def _copies(trainer: Trainer, schedulers: list[Any]) -> tuple[list[torch.optim.Optimizer], list[Any]]:
    """Return stand-ins for the Trainer's optimizers, and copies of ``schedulers`` that set their rates."""
    stand_ins = [_stand_in(optimizer) for optimizer in trainer.optimizers]
    # A schedule may be a method of the module, which must not be copied with it.
    memo: dict[int, Any] = {id(each): each for each in (trainer, trainer.lightning_module)}
    memo |= {id(original): stand_in for original, stand_in in zip(trainer.optimizers, stand_ins, strict=True)}
    return stand_ins, [copy.deepcopy(scheduler, memo) for scheduler in schedulers]


def _stand_in(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    groups = [
        {**copy.deepcopy({key: value for key, value in group.items() if key != "params"}), "params": [torch.zeros(1)]}
        for group in optimizer.param_groups
    ]
    return torch.optim.SGD(groups, lr=0.0)
