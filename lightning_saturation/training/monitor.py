"""What one callback promises, all keep: the base of all that watch a training."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple
from weakref import ref

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from lightning_saturation.arguments import check_count, check_name, check_stages
from lightning_saturation.covariance.ranks import together
from lightning_saturation.training.guard import Guard
from lightning_saturation.training.handover import Handover
from lightning_saturation.training.progress import data_parallel_group, learning_rates, logged_step
from lightning_saturation.training.scalars import log_values
from lightning_saturation.training.window_clock import WindowClock

VERSION = 1


class Measured(NamedTuple):
    """The result of a window: a ``report`` to keep, the ``values`` to log by key, and what was ``judged`` of them.

    All of it is the same on all ranks.
    """

    report: Any
    values: Mapping[str, float]
    judged: Any = None


class Monitor(Callback):
    """Decides when windows open and close, and that nothing of ours changes or ends a user's run.

    A subclass says what is watched and measured, in the methods behind "What a subclass says" below. Whatever it raises
    while a training runs becomes a warning for each cause and a gap in ``reports``, on all ranks alike; only
    ``_prepare``, before the first batch, may refuse. What is logged goes past the Trainer to the loggers, so that one
    that fails ends nothing. Checkpoints keep progress, never configuration: reports, the clock and an open window.
    """

    shown: ClassVar[tuple[str, ...]] = ()
    """Ends of the keys that the progress bar shows."""

    kept: ClassVar[tuple[str, ...]] = ("_reports",)
    """Attributes that closing a window changes; where one rank fails, all of them go back to what they were."""

    def __init__(
        self, *, name: str, stages: Sequence[str] = ("train",), every_n_train_steps: int | None = None
    ) -> None:
        self.stages = check_stages(stages)
        self.every_n_train_steps = check_count("every_n_train_steps", every_n_train_steps, optional=True)
        self.name = check_name(name)
        self._reports: list[Any] = []
        self._clock = WindowClock(every_n_train_steps)
        self._guard = Guard(type(self).__name__)
        self._handover = Handover()
        self._trainer: ref[Trainer] | None = None
        self._earlier = 0  # reports of a Trainer before this one
        self._evaluates = False
        self._resumed = False
        self._open_window: Any = None  # of a checkpoint, until there is a window to put it into

    @property
    def reports(self) -> list[Any]:
        """The report of every closed window, oldest first."""
        with self._guard("read what a started process left"):
            left = self._handover.take()
            if left is not None:
                self._load(left)
        return self._reports

    # What a subclass says

    def _prepare(self, trainer: Trainer, pl_module: LightningModule, stages: Sequence[str]) -> None:
        """Get ready to watch ``stages``, or raise an error about what the user has to change; a collective call."""

    def _begin(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do what is due before the first batch of training; a collective call."""

    def _watch(self, trainer: Trainer, pl_module: LightningModule, stage: str, batch: Any) -> None:
        """Watch the forward passes of ``batch``."""

    def _look_away(self) -> None:
        """Stop watching until the next batch."""

    def _after_batch(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do what is due after a batch of training; the clock has counted it."""

    def _glance(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the open training window, because a validation begins inside it."""

    def _measure(
        self, trainer: Trainer, pl_module: LightningModule, stage: str, *, epoch: int, partial: bool
    ) -> Measured | None:
        """Return the result of the window of ``stage``, None where nothing was seen; a collective call."""
        raise NotImplementedError

    def _keep(self, measured: Measured) -> None:
        """Keep what was measured, in attributes named in ``kept``."""
        if measured.report is not None:
            self._reports.append(measured.report)

    def _reset(self, stage: str) -> None:
        """Start the next window of ``stage``."""

    def _write_window(self, trainer: Trainer, measured: Measured, step: int) -> None:
        """Write to the loggers what they show of a window beyond its values; on rank 0 only."""

    def _write(self, trainer: Trainer, step: int) -> None:
        """Write what loggers and files show of all reports; on rank 0 only."""

    def _end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do what is due after the last window of a training that came to its end; a collective call."""

    def _leave(self) -> None:
        """Leave the model as it was found."""

    def _progress(self) -> dict[str, Any]:
        """Return what a checkpoint keeps beyond the clock, without collectives."""
        return {"reports": [report.to_state() for report in self._reports]}

    def _load_progress(self, state: Mapping[str, Any]) -> None:
        """Take up what ``_progress`` returned; fields may be missing."""
        raise NotImplementedError

    def _window_state(self) -> Any:
        """Return the rows of the open training window, or None where they are too many to carry."""
        return None

    def _load_window(self, state: Any) -> bool:
        """Take up what ``_window_state`` returned, and return whether the window goes on with it."""
        return False

    # A Trainer's run

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start a history of its own in every Trainer that fits, under a name that no other monitor in it has."""
        new = self._trainer is None or self._trainer() is not trainer
        if new:
            self._trainer = ref(trainer)
            self._earlier = len(self._reports)
        monitors = [c for c in trainer.callbacks if isinstance(c, Monitor)]  # type: ignore[attr-defined]
        taken = {other.name for other in monitors[: monitors.index(self)]}
        base, number = self.name, 2
        while self.name in taken:
            self.name, number = f"{base}-{number}", number + 1
        self._evaluates = stage != "fit"
        if stage == "fit":
            self._resumed = False
            self._open_window = None
            if new or self._earlier:
                self._forget(self._earlier)
                self._earlier = 0

    def _forget(self, earlier: int) -> None:
        """Forget the ``earlier`` reports, those of another Trainer."""
        del self._reports[:earlier]
        self._clock.restart(0)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Get ready; layers that are made in ``configure_model`` exist by now."""
        self._prepare_together(trainer, pl_module, [stage for stage in self.stages if stage != "test"])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Continue from the checkpoint, where there is one."""
        with self._guard("take up an open window"):
            if not self._resumed and self._clock.closed_step != trainer.global_step:
                self._clock.restart(trainer.global_step)
            if self._clock.batches and not (self._open_window is not None and self._load_window(self._open_window)):
                self._clock.whole = False  # its first batches are lost
            self._open_window = None
        with self._guard("begin"), together(data_parallel_group(trainer)):
            self._begin(trainer, pl_module)
        if self._clock.batches and self._clock.ended and self._clock.counts_epochs:
            # The checkpoint was written after an epoch's last batch, and before its window was closed.
            self._close_training(trainer, pl_module, inside_batch=False)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Watch this batch."""
        with self._guard("watch a batch"):
            if self._clock.batches and self._clock.counts_epochs and batch_idx == 0:
                # A resumed run begins the epoch anew, of which the checkpoint holds a part.
                self._clock.ended = False
                self._close_training(trainer, pl_module, inside_batch=True)
            rates = learning_rates(trainer)
            self._clock.begin_batch(epoch=trainer.current_epoch, index=batch_idx, rates=rates)
            self._watch(trainer, pl_module, "train", batch)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look away, and close the window where it holds enough steps."""
        with self._guard("watch a batch"):
            self._look_away()
            self._clock.end_batch(last=trainer.is_last_batch)
            self._after_batch(trainer, pl_module)
        if self._clock.steps_are_due(trainer.global_step):
            self._close_training(trainer, pl_module, inside_batch=True)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the window of the epoch, unless validation at its end did."""
        with self._guard("watch a batch"):
            self._look_away()  # ``on_train_batch_start`` of the module may have ended the epoch
        if self._clock.counts_epochs and self._clock.batches:
            self._close_training(trainer, pl_module, inside_batch=False)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close a window within which training ended, and write what loggers show of all reports."""
        if self._clock.batches:
            self._close_training(trainer, pl_module, inside_batch=False, last=True)
        with self._guard("end"), together(data_parallel_group(trainer)):
            self._end(trainer, pl_module)
        self._finish(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the epoch's window before validation, so that callbacks that check at its end find the values."""
        if trainer.sanity_checking:
            return
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._prepare_together(trainer, pl_module, ["val"])
        elif self._clock.counts_epochs and self._clock.batches and trainer.is_last_batch:
            self._close_training(trainer, pl_module, inside_batch=True)
        else:
            with self._guard("look into an open window"):
                self._glance(trainer, pl_module)

    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, *_: Any) -> None:
        """Watch this batch, unless it is a sanity check."""
        if not trainer.sanity_checking:
            with self._guard("watch a batch"):
                self._watch(trainer, pl_module, "val", batch)

    def on_validation_batch_end(self, *_: Any) -> None:
        """Look away."""
        with self._guard("watch a batch"):
            self._look_away()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the validation window."""
        if not trainer.sanity_checking:
            self._close_evaluation(trainer, pl_module, "val", inside_batch=True)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what loggers show and leave the model, in a run of ``Trainer.validate``."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._finish(trainer)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Get ready."""
        self._prepare_together(trainer, pl_module, ["test"])

    def on_test_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, *_: Any) -> None:
        """Watch this batch."""
        with self._guard("watch a batch"):
            self._watch(trainer, pl_module, "test", batch)

    def on_test_batch_end(self, *_: Any) -> None:
        """Look away."""
        with self._guard("watch a batch"):
            self._look_away()

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the test window."""
        self._close_evaluation(trainer, pl_module, "test", inside_batch=False)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what loggers show, and leave the model."""
        self._finish(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the model, and write what there is: a sweep's stop command and Ctrl-C end here too."""
        try:
            self._finish(trainer)
        except Exception:  # where warnings are errors; the user's own exception is the one that must be seen
            return

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the model."""
        with self._guard("leave the model"):
            self._leave()

    # Checkpoints

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

    # How it is done

    def _load(self, state: Mapping[str, Any]) -> None:
        with self._guard("read a checkpoint's progress"):
            clock = state.get("clock")
            if isinstance(clock, Mapping):
                self._clock.load_state(clock)
                self._open_window = state.get("window")
            else:  # a checkpoint from before there was a clock
                self._resumed = False
            self._load_progress(state)

    def _prepare_together(self, trainer: Trainer, pl_module: LightningModule, stages: Sequence[str]) -> None:
        with together(data_parallel_group(trainer)):
            self._prepare(trainer, pl_module, stages)

    def _close_training(
        self, trainer: Trainer, pl_module: LightningModule, *, inside_batch: bool, last: bool = False
    ) -> None:
        clock = self._clock
        partial = last or clock.is_partial
        measured = self._close(trainer, pl_module, "train", epoch=clock.epoch, partial=partial)
        clock.close(trainer.global_step)
        if measured is not None and not last:  # where training ends, nothing can be logged
            self._log(trainer, pl_module, measured, inside_batch=inside_batch)

    def _close_evaluation(
        self, trainer: Trainer, pl_module: LightningModule, stage: str, *, inside_batch: bool
    ) -> None:
        measured = self._close(trainer, pl_module, stage, epoch=trainer.current_epoch, partial=False)
        if measured is not None:
            self._log(trainer, pl_module, measured, inside_batch=inside_batch)

    def _close(
        self, trainer: Trainer, pl_module: LightningModule, stage: str, *, epoch: int, partial: bool
    ) -> Measured | None:
        """Measure the window of ``stage`` and return what was kept of it; a collective call."""
        if stage not in self.stages and trainer.state.fn == TrainerFn.FITTING:
            return None
        before = {name: copy.copy(getattr(self, name)) for name in self.kept}
        measured = None
        with self._guard("measure a window"):
            try:
                with together(data_parallel_group(trainer)):
                    measured = self._measure(trainer, pl_module, stage, epoch=epoch, partial=partial)
                    if measured is not None:
                        self._keep(measured)
            except BaseException:
                measured = None
                for name, value in before.items():
                    setattr(self, name, value)
                raise
        with self._guard("start a window"):
            self._reset(stage)
        return measured

    def _log(
        self, trainer: Trainer, pl_module: LightningModule | None, measured: Measured, *, inside_batch: bool
    ) -> None:
        """Log the result of a window; without ``pl_module``, where modules cannot log, past it."""
        if trainer.barebones:  # logs nothing, and would say so at every attempt
            return
        step = logged_step(trainer, inside_batch=inside_batch)
        with self._guard("log a window"):
            log_values(trainer, pl_module, measured.values, step=step, shown=self.shown)
        if trainer.is_global_zero:
            with self._guard("write a window"):
                self._write_window(trainer, measured, step)

    def _finish(self, trainer: Trainer) -> None:
        """Leave the model, and write what there is."""
        with self._guard("leave the model"):
            self._leave()
        if trainer.is_global_zero and self._reports_to_write():
            with self._guard("write its reports"):
                self._write(trainer, logged_step(trainer))
        if trainer.is_global_zero and self._handover.is_away:
            with self._guard("leave its reports to the process that started this one"):
                self._handover.leave({"version": VERSION, **self._progress()})

    def _reports_to_write(self) -> bool:
        return bool(self._reports)
