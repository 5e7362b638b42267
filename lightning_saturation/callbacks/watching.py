"""When layers are watched: hooks live as long as a Trainer's run, and count within its batches only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from lightning_saturation.callbacks.progress import batches_per_window, data_parallel_group
from lightning_saturation.capture import LayerTracker
from lightning_saturation.metrics.reduction import agree


class WatchingCallback(Callback):
    """A callback that watches layers within the batches of the stages it attached for.

    That leaves out what else runs a model around a Trainer: the sanity check, the search for a learning rate or a batch
    size, model summaries. A subclass decides when a window closes.
    """

    _tracker: LayerTracker[Any] | None = None

    def _track(self, trainer: Trainer, pl_module: LightningModule, stages: Sequence[str]) -> LayerTracker[Any]:
        """Return hooks on the layers of ``pl_module``, not yet attached, with a window for each of ``stages``."""
        raise NotImplementedError

    def _attach(self, trainer: Trainer, pl_module: LightningModule, stages: Sequence[str]) -> LayerTracker[Any]:
        """Put hooks onto the layers of ``pl_module``; ranks that disagree about these all raise, instead of hanging."""
        self._detach()
        group = data_parallel_group(trainer)
        try:
            tracker = self._track(trainer, pl_module, stages)
        except ValueError:
            agree({}, group=group)  # the other ranks, whose model may have these layers, wait for an answer
            raise
        agree(dict.fromkeys(tracker.names), group=group)
        tracker.attach()
        self._tracker = tracker
        return tracker

    def _detach(self) -> None:
        """Leave the model as it was."""
        if self._tracker is not None:
            self._tracker.detach()
            self._tracker = None

    def _expect(self, stage: str, batches: int | None) -> None:
        """Say how many batches the windows of ``stage`` have, None where nobody knows."""
        if self._tracker is not None and stage in self._tracker.windows:
            self._tracker.windows[stage].batches = batches

    def _record(self, stage: str | None) -> None:
        if self._tracker is not None:
            self._tracker.record(stage if stage in self._tracker.windows else None)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Count the forward passes of this batch."""
        self._record("train")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop counting."""
        self._record(None)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop counting, also where ``on_train_batch_start`` of the module ended the epoch."""
        self._record(None)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note how long the window will be."""
        self._expect("val", batches_per_window(trainer, "val"))

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note how long the window will be."""
        self._expect("test", batches_per_window(trainer, "test"))

    def on_validation_batch_start(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Count the forward passes of this batch, unless it is a sanity check."""
        self._record(None if trainer.sanity_checking else "val")

    def on_validation_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Stop counting."""
        self._record(None)

    def on_test_batch_start(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Count the forward passes of this batch."""
        self._record("test")

    def on_test_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Stop counting."""
        self._record(None)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the model after a run of ``Trainer.validate``."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._detach()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the model after a run of ``Trainer.test``."""
        self._detach()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the model."""
        self._detach()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the model; ``teardown`` is not called after an error or Ctrl-C."""
        self._detach()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the model."""
        self._detach()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_tracker": None}  # a copy watches nothing
