"""Closing windows: what may fail, what is kept on all ranks alike, and what is logged."""

from __future__ import annotations

import copy
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from lightning_saturation.covariance.ranks import together
from lightning_saturation.training.guard import Guard
from lightning_saturation.training.instrument import Instrument, Measured, Report
from lightning_saturation.training.progress import logged_step
from lightning_saturation.training.scalars import log_values
from lightning_saturation.training.window_clock import WindowClock


class WindowCloser(Instrument[Report]):
    """Measures windows where they end, so that trouble of ours is a gap on all ranks, and logs what they came to."""

    stages: tuple[str, ...]
    _clock: WindowClock
    _guard: Guard
    _group: Any

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
            log_values(trainer, pl_module, measured.values, step=step, shown=self.shown)
        if trainer.is_global_zero:
            with self._guard("write a window"):
                self._write_window(trainer, measured, step)
