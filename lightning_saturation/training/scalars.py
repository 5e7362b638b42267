"""Values of a window on their way to loggers, progress bar and the callbacks that monitor them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from lightning_saturation.loggers.write import write_scalars


def log_values(
    trainer: Trainer,
    pl_module: LightningModule | None,
    values: Mapping[str, float],
    *,
    step: int,
    shown: Mapping[str, str],
) -> None:
    """Log ``values``, which are the same on all ranks; missing numbers are left out.

    In training they reach the loggers past the Trainer, which would let a logger that fails end the run and hands on
    what is logged in a step at every ``log_every_n_steps`` only, while a window always belongs. ``Trainer.validate``
    and ``Trainer.test`` print and return what they themselves hand to loggers: there they log, unless a logger fails to
    take the number of the epoch. Without ``pl_module``, progress bar and means over epochs do not know of them.
    """
    known = {key: value for key, value in values.items() if not math.isnan(value)}
    training = trainer.state.fn == TrainerFn.FITTING
    works = True
    if trainer.is_global_zero and known:
        epoch = {"epoch": float(trainer.current_epoch)}
        works = write_scalars(trainer.loggers, {**known, **epoch} if training else epoch, step=step)
    if pl_module is None:
        trainer.callback_metrics.update({key: torch.tensor(value) for key, value in known.items()})
        return
    short = {key: f"{key.removesuffix(end)}{shown[end]}" for key in known for end in shown if key.endswith(end)}
    charted = {key: (value, None if works and not training else False) for key, value in known.items()}
    # A bar has room for few letters: there, and for nobody else, keys are shorter.
    charted |= {short[key]: (known[key], False) for key in short}
    for key, (value, logger) in charted.items():
        pl_module.log(
            key,
            value,
            prog_bar=key in short.values(),
            logger=logger,
            batch_size=1,
            sync_dist=True,
            rank_zero_only=True,
            add_dataloader_idx=False,
        )
