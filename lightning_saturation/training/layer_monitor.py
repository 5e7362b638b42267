"""The base of monitors that watch what layers put out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn

from lightning_saturation.capture.select import check_output_layers
from lightning_saturation.capture.tracker import LayerTracker
from lightning_saturation.capture.window import LayerWindow
from lightning_saturation.covariance.ranks import LOCAL
from lightning_saturation.covariance.reduction import agree
from lightning_saturation.training.instrument import Report
from lightning_saturation.training.monitor import Monitor
from lightning_saturation.training.progress import batches_per_window

Window = TypeVar("Window", bound=LayerWindow)


class LayerMonitor(Monitor[Report], Generic[Window, Report]):
    """Hooks on the layers for as long as a run lasts, with a window for each stage; they count within batches only.

    That leaves out what else runs a model around a Trainer: the sanity check, the search for a learning rate or a batch
    size, model summaries.
    """

    output_layers: Sequence[str] | None = None
    _tracker: LayerTracker[Window] | None = None

    def _track(self, trainer: Trainer, pl_module: LightningModule, stages: Sequence[str]) -> LayerTracker[Window]:
        """Return hooks on the layers of ``pl_module``, not yet attached, with a window for each of ``stages``."""
        raise NotImplementedError

    def _prepare(self, trainer: Trainer, pl_module: LightningModule, stages: Sequence[str]) -> None:
        if trainer.state.fn == TrainerFn.FITTING and [*stages] == ["val"] and not trainer.enable_validation:
            rank_zero_warn(
                f"{type(self).__name__} watches validation, and there is none, so that it will measure nothing. Give"
                " `fit` validation data, or watch `stages=('train',)`."
            )
        self._leave()
        tracker = self._track(trainer, pl_module, stages)
        agree(dict.fromkeys(tracker.names), group=self._group)
        if trainer.state.fn == TrainerFn.FITTING:
            check_output_layers(tracker.names, self.output_layers)
        tracker.attach()
        self._tracker = tracker

    def _renew(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Watch other layers where those that were watched are no longer the model's: what was replaced never runs."""
        old = self._tracker
        if old is None or old.is_current or any(not window.is_empty for window in old.windows.values()):
            return
        self._leave()
        tracker = self._track(trainer, pl_module, list(old.windows))
        tracker.attach()
        self._tracker = tracker

    def _window(self, stage: str) -> Window | None:
        return None if self._tracker is None else self._tracker.windows.get(stage)

    def _watch(self, trainer: Trainer, pl_module: LightningModule, stage: str, batch: Any) -> None:
        window = self._window(stage)
        if window is not None and window.is_empty:
            self._renew(trainer, pl_module)
            window = self._window(stage)
        if self._tracker is not None and window is not None:
            if window.is_empty:
                window.batches = batches_per_window(trainer, stage, self.every_n_train_steps)
            self._tracker.counts = partial(_in_a_step, pl_module)
            self._tracker.record(stage, batch)

    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, *_: Any) -> None:
        """Watch this batch; of a sanity check, which trains and counts nothing, only how data flows."""
        if trainer.sanity_checking:
            with self._guard("watch a batch"):
                if self._tracker is not None:
                    self._tracker.look_once(batch)
        else:
            super().on_validation_batch_start(trainer, pl_module, batch)

    def _look_away(self) -> None:
        if self._tracker is not None:
            self._tracker.record(None)

    def _reset(self, stage: str) -> None:
        window = self._window(stage)
        if window is not None:
            window.reset()

    def _leave(self) -> None:
        if self._tracker is not None:
            self._tracker.detach()
            self._tracker = None  # not before: after a Ctrl-C in there, the next call does what is left

    def _window_state(self) -> Any:
        window = self._window("train")
        # Other ranks' rows are not at hand where a checkpoint is written.
        return window.to_state() if window is not None and self._group == LOCAL else None

    def _load_window(self, state: Any) -> bool:
        window = self._window("train")
        if window is None:
            return False
        window.load_state(state)
        return True

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_tracker": None}  # a copy watches nothing


def _in_a_step(module: LightningModule) -> bool:
    """Return whether a step runs, and not a hook of a callback or of the module: forwards in there are no data.

    Which callbacks have their hooks between ours depends on the order of callbacks. Nothing public tells; where
    Lightning no longer does, all is counted.
    """
    return not str(getattr(module, "_current_fx_name", None) or "").startswith("on_")
