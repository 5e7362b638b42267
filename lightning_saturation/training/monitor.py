"""What one callback promises, all keep: the base of all that watch a training."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any
from weakref import ref

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from lightning_saturation.covariance.ranks import LOCAL, together
from lightning_saturation.loggers.dispatch import write_config
from lightning_saturation.training.groups import meet, training_group
from lightning_saturation.training.instrument import Report
from lightning_saturation.training.progress import callbacks_of, learning_rates, logged_step
from lightning_saturation.training.window_closer import VERSION, WindowCloser


class Monitor(WindowCloser[Report]):
    """Decides when windows open and close, and that nothing of ours changes or ends a user's run.

    What is watched and measured a subclass says, in the methods of :class:`Instrument`. Whatever it raises while a
    training runs becomes a warning for each cause and a gap in ``reports``, on all ranks alike; only ``_prepare``,
    before the first batch, may refuse. What is logged goes past the Trainer to the loggers, so that one that fails ends
    nothing.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start a history of its own in every Trainer that fits, under a name that no other monitor in it has."""
        new = self._trainer is None or self._trainer() is not trainer
        if new:
            self._trainer = ref(trainer)
            self._earlier = len(self._reports)
        monitors = [c for c in callbacks_of(trainer) if isinstance(c, Monitor)]
        taken = {other.name for other in takewhile(lambda other: other is not self, monitors)}
        base, number = self.name, 2
        while self.name in taken:
            self.name, number = f"{base}-{number}", number + 1
        self._evaluates = stage != "fit"
        if stage == "fit":
            self._resumed = False
            self._open_window = None
            self._anew = bool(new or self._earlier)
            if self._anew:
                self._forget(self._earlier)
                self._earlier = 0

    def _forget(self, earlier: int) -> None:
        """Forget the ``earlier`` reports, those of another Trainer."""
        del self._reports[:earlier]
        self._clock.restart(0)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Get ready; layers that are made in ``configure_model`` exist by now."""
        self._prepare_together(trainer, pl_module, [stage for stage in self.stages if stage != "test"])

    # Ranks decide alike: what follows decides by numbers that no function of ours can spoil on one of them, and calls
    # such functions only where trouble is caught (``_guard``) or known to all (``together``, ``_close``).

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take up where a checkpoint left off."""
        clock = self._clock
        with self._guard("begin"), together(self._group):
            self._take_up(trainer)
            self._begin(trainer, pl_module)
        with self._guard("log its arguments"):
            if trainer.is_global_zero:
                write_config(trainer.loggers, self.name, self._arguments())
        if clock.batches and clock.ended and clock.every_n_steps is None:
            # The checkpoint was written after an epoch's last batch, and before its window was closed.
            self._close(trainer, pl_module, "train", inside_batch=False)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Watch this batch."""
        clock = self._clock
        if trainer.current_epoch > clock.epoch:
            self._hear(trainer)
        if batch_idx == 0 and clock.batches and clock.every_n_steps is None:
            # A resumed run begins the epoch anew, of which the checkpoint holds a part.
            clock.ended = False
            self._close(trainer, pl_module, "train", inside_batch=True)
        if not clock.batches and clock.every_n_steps is None and batch_idx > 0:
            clock.whole = False
        clock.epoch = trainer.current_epoch
        with self._guard("watch a batch"), together(self._group if self.meets_in_batches else LOCAL):
            if not clock.batches:
                clock.rates = learning_rates(trainer)
            self._watch(trainer, pl_module, "train", batch)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look away, and close the window where it holds enough steps."""
        clock = self._clock
        clock.batches += 1
        clock.ended = trainer.is_last_batch
        with self._guard("watch a batch"):
            self._look_away()
        if self.meets_in_batches:
            with self._guard("look at the layers after a batch"), together(self._group):
                self._after_batch(trainer, pl_module)
        if clock.every_n_steps is not None and trainer.global_step - clock.closed_step >= clock.every_n_steps:
            self._close(trainer, pl_module, "train", inside_batch=True)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the window of the epoch, unless validation at its end did."""
        clock = self._clock
        with self._guard("watch a batch"):
            self._look_away()  # ``on_train_batch_start`` of the module may have ended the epoch
        if clock.every_n_steps is None and clock.batches:
            self._close(trainer, pl_module, "train", inside_batch=False)
        self._hear(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close a window within which training ended, and write what loggers show of all reports."""
        if self._clock.batches:
            self._close(trainer, pl_module, "train", inside_batch=False, last=True)
        self._hear(trainer)
        with self._guard("end"), together(self._group):
            self._end(trainer, pl_module)
        with self._guard("finish"):
            self._finish(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the epoch's window before validation, so that whoever checks at its end finds the values."""
        clock = self._clock
        if trainer.sanity_checking:
            return
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._prepare_together(trainer, pl_module, ["val"])
        elif clock.every_n_steps is None and clock.batches and trainer.is_last_batch:
            self._close(trainer, pl_module, "train", inside_batch=True)
        else:
            with self._guard("look into an open window"), together(self._group):
                self._glance(trainer, pl_module)

    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, *_: Any) -> None:
        """Watch this batch, unless it is a sanity check."""
        if not trainer.sanity_checking:
            with self._guard("watch a batch"):
                self._watch(trainer, pl_module, "val", batch)

    def on_validation_batch_end(self, *_: Any, **__: Any) -> None:
        """Look away."""
        with self._guard("watch a batch"):
            self._look_away()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the validation window."""
        if not trainer.sanity_checking:
            self._close(trainer, pl_module, "val", inside_batch=True)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what loggers show and leave the model, in a run of ``Trainer.validate``."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            with self._guard("finish"):
                self._finish(trainer)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Get ready."""
        self._prepare_together(trainer, pl_module, ["test"])

    def on_test_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, *_: Any) -> None:
        """Watch this batch."""
        with self._guard("watch a batch"):
            self._watch(trainer, pl_module, "test", batch)

    on_test_batch_end = on_validation_batch_end

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the test window."""
        self._close(trainer, pl_module, "test", inside_batch=False)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what loggers show, and leave the model."""
        with self._guard("finish"):
            self._finish(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the model, and write what there is: a sweep's stop command and Ctrl-C end here too."""
        try:
            with self._guard("finish"):
                self._finish(trainer)
        except Exception:  # where warnings are errors; the user's own exception is the one that must be seen
            return

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the model."""
        with self._guard("leave the model"):
            self._leave()

    def _hear(self, trainer: Trainer) -> None:
        with self._guard("look at an epoch's metrics"):
            self._after_epoch(trainer, self._clock.epoch)

    def _prepare_together(self, trainer: Trainer, pl_module: LightningModule, stages: Sequence[str]) -> None:
        try:
            self._group = meet(trainer, f"{type(self).__name__}(name={self.name!r})")
            with together(self._group):
                self._prepare(trainer, pl_module, stages)
        except (RuntimeError, MemoryError) as error:
            # Mistakes in arguments are shown, and in training also ranks that do not go together.
            if trainer.state.fn == TrainerFn.FITTING:
                raise
            self._guard.tell("get ready", error)
            with self._guard("leave the model"):
                self._leave()

    def _take_up(self, trainer: Trainer) -> None:
        """Take up the clock and the open window of a checkpoint, and find out which ranks can wait for each other."""
        clock = self._clock
        if clock.closed_step != trainer.global_step and (not self._resumed or clock.closed_step < 0):
            clock.restart(trainer.global_step)
        if clock.batches and not (self._open_window is not None and self._load_window(self._open_window)):
            clock.whole = False  # its first batches are lost
        self._open_window = None
        self._group = training_group(trainer, type(self).__name__)

    def _finish(self, trainer: Trainer) -> None:
        """Leave the model, and write what there is."""
        with self._guard("leave the model"):
            self._leave()
        with self._guard("write its reports"):
            if trainer.is_global_zero and self._has_something_to_write():
                self._write(trainer, logged_step(trainer))
        with self._guard("leave its reports to the process that started this one"):
            if trainer.is_global_zero and self._handover.is_away:
                self._handover.leave({"version": VERSION, **self._progress()})
