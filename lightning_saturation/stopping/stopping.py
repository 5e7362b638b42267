"""Stopping when a profile has settled."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info

from lightning_saturation.arguments import check_choice, check_count, check_name, check_patterns
from lightning_saturation.covariance.ranks import LOCAL, gather, together
from lightning_saturation.loggers.dispatch import write_scalars, write_text
from lightning_saturation.stopping.foresight import never_fires, waits
from lightning_saturation.stopping.settled import SettledRule, Settling
from lightning_saturation.training.groups import meet, training_group
from lightning_saturation.training.guard import Guard
from lightning_saturation.training.progress import callbacks_of, logged_step
from lightning_saturation.training.window_closer import VERSION


@runtime_checkable
class WatchesSettling(Protocol):
    """A callback that can be stopped on: its ``name``, its windows, and by stage what its complete ones said so far."""

    name: str
    every_n_train_steps: int | None
    settling: Mapping[str, Sequence[Settling]]


class SaturationStopping(EarlyStopping):
    """Stop training when the profile has settled, without any validation data.

    After every complete window the monitor takes the mean over the watched layers of ``|continuous saturation now −
    window windows ago|`` (``saturation/{stage}/change``). When that stays below ``tolerance`` for ``patience`` windows,
    training stops, on all ranks alike. The rule needs no ``max_epochs``. It goes on through a smooth schedule, starts
    anew when the learning rate drops by more than 30 % within one window, and waits where the Trainer's schedulers plan
    such a drop; of ``ReduceLROnPlateau``, and of a training without an end, no plan is known.

    It watches representations: that a network overfits it cannot see. Where there is validation data, add Lightning's
    ``EarlyStopping``; whichever fires first stops. A stop that cannot fire is warned of when training starts. Loggers
    get ``saturation/{stage}/stopped_epoch`` and the reason, ``saturation/{stage}/stopped_reason``.

    Needs a :class:`SaturationMonitor` in the same Trainer, or with its ``name`` a :class:`SimilarityMonitor`, whose
    change is the mean of 1 − similarity to the window before.

    Args:
        stage: whose windows decide, ``"train"`` or ``"val"``.
        tolerance: mean change of saturation below which a window is calm, in (0, 1].
        window: over how many windows a change is taken.
        patience: how many calm windows in a row stop training; nothing stops before ``window + patience`` windows.
        min_epochs: epochs before which nothing stops, None for no such limit.
        layers: names or globs of the layers to watch, None for all that enter the average.
        name: that of the monitor, where there are several.

    Source: Shenk et al., *Spectral Analysis of Latent Representations*, sections 3.3 and 4 (saturation settles before
    the loss); rule and defaults are this package's, chosen on recorded runs (``docs/stopping.md``).
    """

    def __init__(
        self,
        stage: str = "train",
        tolerance: float = 0.01,
        window: int = 5,
        patience: int = 3,
        min_epochs: int | None = None,
        layers: Sequence[str] | None = None,
        name: str = "saturation",
    ) -> None:
        check_choice("stage", stage, ("train", "val"))
        check_count("min_epochs", min_epochs, optional=True)
        patterns = check_patterns("layers", layers)
        watched = None if patterns is None else (patterns,) if isinstance(patterns, str) else tuple(patterns)
        self.rule = SettledRule(window, tolerance, patience, watched)
        super().__init__(monitor=f"{check_name(name)}/{stage}/change", mode="min", patience=patience, strict=False)
        self.stage = stage
        self.min_epochs = min_epochs
        self.name = name
        self._judged = 0
        self._watched: WatchesSettling | None = None
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
                self._judged = len(source.settling[self.stage])
                self._group = training_group(trainer, type(self).__name__)
            self._watched = source
        with self._guard("look ahead"):
            why = "" if self._watched is None else never_fires(trainer, self._watched, self.rule, self.stage)
            if why and trainer.is_global_zero and not getattr(trainer, "fast_dev_run", False):
                warnings.warn(f"{type(self).__name__} cannot stop this training: {why}", stacklevel=2)

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Decide, where a window closed with this batch."""
        self._decide(trainer, inside_batch=True)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Decide, where a window closed with this epoch."""
        self._decide(trainer, inside_batch=False)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Decide, where a window closed with this validation."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._decide(trainer, inside_batch=True)

    def _decide(self, trainer: Trainer, *, inside_batch: bool) -> None:
        """Judge a window that has closed; ranks go on to do so, or not, by a number that is the same on all of them."""
        count = 0 if self._watched is None else len(self._watched.settling[self.stage])
        if count == self._judged or self._watched is None:
            return
        self._judged = count
        agreed, last = False, self._watched.settling[self.stage][-1]
        with self._guard("judge a window"), together(self._group):
            # A fit that goes on with a history counts from its own first window.
            self.wait_count = min(last.calm, self.wait_count + 1)
            stop = self.wait_count >= self.rule.patience and trainer.current_epoch + 1 >= (self.min_epochs or 0)
            stop = stop and not self._waits(trainer, self._watched)
            # `should_stop` is local: one rank that stops alone leaves the others waiting for it.
            agreed = any(gather(stop, self._group))
        if agreed:
            trainer.should_stop, self.stopped_epoch = True, trainer.current_epoch
            with self._guard("say why it stops"):
                self._say(trainer, last, step=logged_step(trainer, inside_batch=inside_batch))

    def _waits(self, trainer: Trainer, watched: WatchesSettling) -> bool:
        with self._guard("foresee the learning rate"):
            return waits(trainer, watched, self.stage)
        return False

    def _say(self, trainer: Trainer, last: Settling, *, step: int) -> None:
        rule = self.rule
        self.stopping_reason_message = (
            f"The {self.stage} profile has settled after epoch {trainer.current_epoch}: {self.monitor}, the mean change"
            f" of the watched layers over {rule.window} windows, was below {rule.tolerance:g} for {self.wait_count}"
            f" windows in a row, and is {last.change:.4f} now. Training stops."
        )
        rank_zero_info(self.stopping_reason_message)
        if trainer.is_global_zero:
            key = f"{self.name}/{self.stage}/stopped"
            write_scalars(trainer.loggers, {f"{key}_epoch": float(self.stopped_epoch)}, step=step)
            write_text(trainer.loggers, f"{key}_reason", self.stopping_reason_message, step=step)

    def _source(self, trainer: Trainer) -> WatchesSettling:
        watching = [c for c in callbacks_of(trainer) if isinstance(c, WatchesSettling)]
        for callback in watching:
            if callback.name == self.name and self.stage in callback.settling:
                return callback
        known = any(callback.name == self.name for callback in watching)
        mend = f"Add {self.stage!r} to its `stages`" if known else "Add `SaturationMonitor()`"
        raise ValueError(
            f"Expected a monitor called {self.name!r} that watches stage {self.stage!r} among the Trainer's callbacks,"
            f" got {[(c.name, list(c.settling)) for c in watching]}. {mend}."
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


def rule_for(trainer: Trainer, name: str, stage: str) -> SettledRule:
    """Return the rule of the stopper in ``trainer`` that watches ``stage`` of the monitor ``name``, or the default."""
    for callback in callbacks_of(trainer):
        if isinstance(callback, SaturationStopping) and (callback.name, callback.stage) == (name, stage):
            return callback.rule
    return SettledRule()
