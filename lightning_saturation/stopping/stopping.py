"""Stopping when saturation has settled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info

from lightning_saturation.arguments import check_count, check_name, check_patterns, check_share
from lightning_saturation.covariance.ranks import LOCAL, gather, together
from lightning_saturation.stopping.plateau import Plateau, PlateauRule
from lightning_saturation.training.groups import meet, training_group
from lightning_saturation.training.guard import Guard
from lightning_saturation.training.resumable import VERSION


@runtime_checkable
class WatchesConvergence(Protocol):
    """A callback that can be stopped on: its ``name`` and, by stage, the plateaus of its complete windows so far."""

    name: str
    plateaus: Mapping[str, Sequence[Plateau]]


class SaturationStopping(EarlyStopping):
    """Stop training when saturation has settled, without any validation data.

    After every complete window the monitor bounds how far each watched layer's continuous saturation will still move
    until the end of training (``saturation/{stage}/drift``). When that stays below ``tolerance`` for ``patience``
    windows, training stops, on all ranks alike. A window cut short never counts; a change of learning rate by more than
    5 % starts the count again. Needs a :class:`SaturationMonitor` in the same Trainer.

    Args:
        stage: whose windows decide, ``"train"`` or ``"val"``.
        tolerance: largest projected change of any layer's saturation that counts as settled, in (0, 1].
        window: how many windows the projection rests on, at least 3; nothing stops before.
        patience: how many settled windows in a row stop training, at least 1.
        min_epochs: epochs before which nothing stops, None for no such limit beyond ``window``.
        layers: names or globs of the layers to watch, None for all that enter the average.
        name: that of the monitor, where there are several.

    Source: Shenk et al., *Spectral Analysis of Latent Representations*, sections 3.3 and 4 (saturation settles before
    the loss); the rule is an equivalence test on the slope.
    """

    def __init__(
        self,
        stage: str = "train",
        tolerance: float = 0.01,
        window: int = 12,
        patience: int = 3,
        min_epochs: int | None = None,
        layers: Sequence[str] | None = None,
        name: str = "saturation",
    ) -> None:
        if stage not in ("train", "val"):
            raise ValueError(f"Expected `stage` to be 'train' or 'val', got {stage!r}.")
        check_count("patience", patience)
        check_count("min_epochs", min_epochs, optional=True)
        patterns = check_patterns("layers", layers)
        watched = None if patterns is None else (patterns,) if isinstance(patterns, str) else tuple(patterns)
        self.rule = PlateauRule(check_share("tolerance", tolerance), check_count("window", window, least=3), watched)
        super().__init__(monitor=f"{check_name(name)}/{stage}/drift", mode="min", patience=patience, strict=False)
        self.stage = stage
        self.min_epochs = min_epochs
        self.name = name
        self._judged = 0
        self._watched: WatchesConvergence | None = None
        self._group: Any = LOCAL
        self._guard = Guard(type(self).__name__)

    @property
    def state_key(self) -> str:
        """The key of this callback's state in a checkpoint."""
        return self._generate_state_key(stage=self.stage, name=self.name)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that a monitor measures what this callback watches."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self._source(trainer)
            self.wait_count = 0  # a checkpoint, where there is one, is read after this

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the ranks that decide together."""
        self._group = meet(trainer, f"{type(self).__name__}(name={self.name!r})")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judge windows from here on only; where one rank cannot, none does."""
        self._watched = None
        with self._guard("begin"):
            with together(self._group):
                source = self._source(trainer)
                self._judged = len(source.plateaus[self.stage])
                self._group = training_group(trainer, type(self).__name__)
            self._watched = source

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Decide, where a window closed with this batch."""
        self._decide(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Decide, where a window closed with this epoch."""
        self._decide(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Decide, where a window closed with this validation."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._decide(trainer)

    def _decide(self, trainer: Trainer) -> None:
        """Judge a window that has closed; ranks go on to do so, or not, by a number that is the same on all of them."""
        count = 0 if self._watched is None else len(self._watched.plateaus[self.stage])
        if count == self._judged or self._watched is None:
            return
        self._judged = count
        with self._guard("judge a window"), together(self._group):
            self._judge(trainer, self._watched.plateaus[self.stage][-1])

    def _judge(self, trainer: Trainer, plateau: Plateau) -> None:
        self.wait_count = self.wait_count + 1 if plateau.converged else 0
        stop = self.wait_count >= self.patience and trainer.current_epoch + 1 >= (self.min_epochs or 0)
        # `should_stop` is local: one rank that stops alone leaves the others waiting for it.
        if any(gather(stop, self._group)):
            self._stop(trainer, plateau.drift)

    def _stop(self, trainer: Trainer, drift: float) -> None:
        trainer.should_stop = True
        self.stopped_epoch = trainer.current_epoch
        self.stopping_reason_message = (
            f"Saturation has settled after epoch {trainer.current_epoch}: for {self.wait_count} windows no watched"
            f" layer was projected to change by {self.rule.tolerance} until the end of training"
            f" ({self.monitor} = {drift:.4f}). Training stops."
        )
        rank_zero_info(self.stopping_reason_message)

    def _source(self, trainer: Trainer) -> WatchesConvergence:
        watching = [c for c in trainer.callbacks if isinstance(c, WatchesConvergence)]  # type: ignore[attr-defined]
        for callback in watching:
            if callback.name == self.name and self.stage in callback.plateaus:
                return callback
        raise ValueError(
            f"Expected a monitor called {self.name!r} that watches stage {self.stage!r} among the Trainer's callbacks,"
            f" got {[(c.name, list(c.plateaus)) for c in watching]}. Add `SaturationMonitor()`."
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_watched": None}  # a copy watches nothing

    def state_dict(self) -> dict[str, Any]:
        """Return progress, not configuration: a resumed run honours its own arguments."""
        return {"version": VERSION, "wait_count": self.wait_count, "stopped_epoch": self.stopped_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with the progress of an earlier run."""
        self.wait_count = state_dict.get("wait_count", 0)
        self.stopped_epoch = state_dict.get("stopped_epoch", 0)


def rule_for(trainer: Trainer, name: str, stage: str) -> PlateauRule:
    """Return the rule of the stopper in ``trainer`` that watches ``stage`` of the monitor ``name``, or the default."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, SaturationStopping) and (callback.name, callback.stage) == (name, stage):
            return callback.rule
    return PlateauRule()
