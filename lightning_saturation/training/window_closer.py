"""Closing windows: what may fail, what is kept on all ranks alike and in checkpoints, and what is logged."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import ref

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from lightning_saturation.arguments import check_count, check_name, check_stages
from lightning_saturation.covariance.ranks import LOCAL, together
from lightning_saturation.loggers.dispatch import write_scalars
from lightning_saturation.training.guard import Guard
from lightning_saturation.training.handover import Handover
from lightning_saturation.training.instrument import Instrument, Measured, Report
from lightning_saturation.training.progress import WindowClock, logged_step

VERSION = 1
"""Of what checkpoints hold."""


class WindowCloser(Instrument[Report], Callback):
    """Measures windows where they end, so that trouble of ours is a gap on all ranks, and logs what they came to.

    Checkpoints keep progress, never configuration: reports, the clock and an open window. Fields that a version does
    not know are ignored, missing ones are NaN or as at the start, so that any checkpoint can be read.
    """

    def __init__(
        self, *, name: str, stages: Sequence[str] = ("train",), every_n_train_steps: int | None = None
    ) -> None:
        self.stages = check_stages(stages)
        self.every_n_train_steps = check_count("every_n_train_steps", every_n_train_steps, optional=True)
        self.name = check_name(name)
        self._reports: list[Report] = []
        self._clock = WindowClock(every_n_train_steps)
        self._guard = Guard(type(self).__name__)
        self._handover = Handover()
        self._trainer: ref[Trainer] | None = None
        self._group: Any = LOCAL
        self._earlier = 0  # reports of a Trainer before this one
        self._evaluates = False
        self._resumed = False
        self._anew = True  # no second fit of one Trainer
        self._open_window: Any = None  # of a checkpoint, until there is a window to put it into

    def _close(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        stage: str,
        *,
        inside_batch: bool,
        last: bool = False,
        before_training: bool = False,
    ) -> None:
        """Measure the window of ``stage``, keep what it came to and log it, and begin the next; a collective call.

        The ``last`` one is cut short where training ends, and nothing can be logged any more; ``before_training`` is no
        window, but a measurement before the first step, where modules cannot log either.
        """
        before = {name: copy.copy(getattr(self, name)) for name in self.kept}
        measured = None
        with self._guard("measure a window"):
            try:
                with together(self._group):
                    measured = self._measured(trainer, pl_module, stage, last=last, before_training=before_training)
            except BaseException:
                measured = None
                for name, value in before.items():
                    setattr(self, name, value)
                raise
        if not before_training:
            with self._guard("start a window"):
                self._reset(stage)
        if stage == "train" and not before_training:
            clock = self._clock
            clock.closed_step = trainer.global_step
            clock.batches, clock.whole, clock.ended = 0, True, False
        if measured is not None and not last:
            with self._guard("log a window"):
                self._log(trainer, None if before_training else pl_module, measured, inside_batch=inside_batch)

    def _measured(
        self, trainer: Trainer, pl_module: LightningModule, stage: str, *, last: bool, before_training: bool
    ) -> Measured | None:
        """Return what was kept of a window, None where there was nothing or ``stage`` is not watched."""
        if stage not in self.stages and trainer.state.fn == TrainerFn.FITTING:
            return None
        epoch, partial = trainer.current_epoch, False
        if before_training:
            epoch = -1
        elif stage == "train":
            epoch, partial = self._clock.epoch, last or self._clock.is_partial
        measured = self._measure(trainer, pl_module, stage, epoch=epoch, partial=partial)
        if measured is not None:
            self._keep(measured)
        return measured

    def _log(
        self, trainer: Trainer, pl_module: LightningModule | None, measured: Measured, *, inside_batch: bool
    ) -> None:
        """Log what a window came to; without ``pl_module``, where modules cannot log, past it."""
        if trainer.barebones:  # logs nothing, and would say so at every attempt
            return
        step = logged_step(trainer, inside_batch=inside_batch)
        with self._guard("log a window"):
            self._log_values(trainer, pl_module, measured.values, step)
        if trainer.is_global_zero:
            with self._guard("write a window"):
                self._write_window(trainer, measured, step)

    def _log_values(
        self, trainer: Trainer, pl_module: LightningModule | None, values: Mapping[str, float], step: int
    ) -> None:
        """Log ``values``, which are the same on all ranks; missing numbers are left out.

        In training they go past the Trainer, which would let a logger that fails end the run, hands on what is logged
        in a step at every ``log_every_n_steps`` only, and takes a millisecond a key. ``Trainer.validate`` and
        ``Trainer.test`` print and return what they themselves hand to loggers: there they log, unless a logger fails to
        take the number of the epoch. Without ``pl_module`` the progress bar does not know of them.
        """
        known = {key: value for key, value in values.items() if not math.isnan(value)}
        training = trainer.state.fn == TrainerFn.FITTING
        works = True
        if trainer.is_global_zero and known:
            epoch = {"epoch": float(trainer.current_epoch)}
            works = write_scalars(trainer.loggers, {**known, **epoch} if training else epoch, step=step)
        if pl_module is None or training:
            offer(trainer, known)
        if pl_module is None:
            return
        charted = {} if training else {key: (value, None if works else False) for key, value in known.items()}
        # A bar has room for few letters: there, and for nobody else, keys are shorter.
        short = {
            f"{key.removesuffix(end)}{self.shown[end]}": value
            for key, value in known.items()
            for end in self.shown
            if key.endswith(end)
        }
        charted |= {key: (value, False) for key, value in short.items()}
        for key, (value, logger) in charted.items():
            pl_module.log(
                key,
                value,
                prog_bar=key in short,
                logger=logger,
                batch_size=1,
                sync_dist=True,
                rank_zero_only=True,
                add_dataloader_idx=False,
            )

    @property
    def reports(self) -> list[Report]:
        """The report of every closed window, oldest first."""
        self.take_back()
        return self._reports

    def take_back(self) -> None:
        """Take up what a process that a strategy started has found, if it left anything."""
        with self._guard("read what a started process left"):
            left = self._handover.take()
            if left is not None:
                self._load(left)

    @property
    def state_key(self) -> str:
        """The key of this callback's state in a checkpoint: its name, so that other arguments may change."""
        if self._trainer is None:  # Trainers refuse two callbacks of one key before `setup` can tell these apart
            return self._generate_state_key(name=self.name, number=id(self))
        return self._generate_state_key(name=self.name)

    def state_dict(self) -> dict[str, Any]:
        """Return progress: reports, the clock, and the rows of an open window where they are few enough."""
        with self._guard("save its progress"):
            window = self._window_state() if self._clock.batches else None
            return {"version": VERSION, "clock": self._clock.to_state(), "window": window, **self._progress()}
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up progress; arguments stay those of this run, and fields that are unknown or missing do no harm.

        Lightning also calls this before it evaluates a checkpoint, which is no reason to forget what came after it.
        """
        if not self._evaluates:
            self._resumed = True
            self._load(state_dict)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take up progress that an earlier version kept under a key of more than the name."""
        states = checkpoint.get("callbacks", {})
        if self.state_key not in states:
            begin = f"{type(self).__qualname__}{{'name': {self.name!r},"
            for key in [key for key in states if str(key).startswith(begin)]:
                self.load_state_dict(copy.deepcopy(states[key]))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_trainer": None}  # a copy belongs to no Trainer

    def _load(self, state: Mapping[str, Any]) -> None:
        with self._guard("read a checkpoint's progress"):
            clock = state.get("clock")
            if isinstance(clock, Mapping):
                self._clock.load_state(clock)
                self._open_window = state.get("window")
            else:  # a checkpoint from before there was a clock
                self._clock.restart(-1)
            self._load_progress(state)


def offer(trainer: Trainer, values: Mapping[str, float]) -> None:
    """Give ``values`` to whoever monitors the Trainer's metrics."""
    numbers = torch.tensor(list(values.values()), device=trainer.strategy.root_device)
    trainer.callback_metrics.update(zip(values, numbers, strict=True))
