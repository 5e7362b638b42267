"""Freeze training: layers that have stopped changing skip the backward pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities import rank_zero_info
from torch.nn.parallel import DistributedDataParallel

from lightning_saturation.arguments import check_choice, check_count, check_name, check_patterns, check_share
from lightning_saturation.covariance.ranks import LOCAL, gather
from lightning_saturation.freezing.blocks import Freezer, find_blocks
from lightning_saturation.saturation.monitor import SaturationMonitor
from lightning_saturation.saturation.report.report import SaturationReport
from lightning_saturation.saturation.report.windows import saturation_series
from lightning_saturation.similarity.monitor import SimilarityMonitor
from lightning_saturation.stopping.settled import profile_changes
from lightning_saturation.training.handover import HandedBack
from lightning_saturation.training.instrument import Measured
from lightning_saturation.training.monitor import Monitor
from lightning_saturation.training.progress import callbacks_of, fraction_done

# A share of training is reached although its sum of batches is a rounding error short of it.
_ROUNDING = 1e-9


class FreezeTraining(Monitor[None]):
    """Freeze a network's layers during training, from the input upwards; the last one learns to the end.

    Frozen parameters need no gradient, so that backward passes end above them; optimizers leave them and their own
    state alone, weight decay included; batch norm statistics in frozen blocks stand still and are used instead of the
    batch's. Progress survives a checkpoint. Works on one device and under DDP, whose reducer is rebuilt at each
    freeze; other strategies are an error. What is frozen stays so after training, until ``unfreeze()``.

    Logs ``{name}/layers`` (blocks that stand still) and ``{name}/parameters`` at the end of every epoch.

    Args:
        schedule: ``"linear"`` freezes block i of L at share i / L of training (``until`` stretches or squeezes this);
            ``"converged"`` freezes the lowest learning block when the monitor called ``monitor`` says that it has
            settled: similarity to the window before of at least 1 − ``tolerance`` for a :class:`SimilarityMonitor`, a
            change over ``window`` windows below ``tolerance`` for a :class:`SaturationMonitor`, ``patience`` windows in
            a row.
        blocks: names or globs (or several of them) of what freezes together, input first, such as residual blocks:
            ``["conv1", "layer1.*", "layer2.*", "fc"]``. None makes a block of every layer and the normalisation that
            follows it, in the order in which modules are declared. The last one never freezes.
        until: share of training at which the last block would freeze under ``"linear"``.
        monitor: ``name`` of the monitor that ``"converged"`` watches.
        tolerance: largest change that counts as settled, in (0, 1).
        patience: windows in a row.
        window: over how many windows a change of saturation is taken.
        name: first part of the keys.

    Raises:
        ValueError: for an argument out of range here; for blocks that match nothing, a missing monitor, a strategy that
            shards parameters or a training without end (``"linear"``), when fitting starts.

    Source: Raghu et al., *SVCCA*, section 4.2 and figure 5.
    """

    def __init__(
        self,
        schedule: Literal["linear", "converged"] = "linear",
        blocks: Sequence[str | Sequence[str]] | None = None,
        until: float = 1.0,
        monitor: str = "similarity",
        tolerance: float = 0.02,
        patience: int = 2,
        window: int = 5,
        name: str = "freeze",
    ) -> None:
        check_choice("schedule", schedule, ("linear", "converged"))
        if isinstance(blocks, str) or not isinstance(blocks, Sequence | None):
            raise TypeError(f"Expected `blocks` to be a list of names or globs, or of lists of them, got {blocks!r}.")
        super().__init__(name=name)
        self.until = check_share("until", until)
        self.tolerance = check_share("tolerance", tolerance, one=False)
        self.patience = check_count("patience", patience)
        self.window = check_count("window", window)
        self.schedule, self.monitor = schedule, check_name(monitor, "monitor")
        self.blocks = blocks and [check_patterns("blocks", block, optional=False) for block in blocks]
        self.meets_in_batches = schedule == "linear"
        self.history = []
        self._freezer: Freezer | None = None
        self._frozen_before = 0
        self._calm = 0
        self._seen = 0
        self._released = False

    history = HandedBack[list[tuple[int, int]]]()
    """Step and number of frozen blocks, one entry for each freeze."""

    @property
    def frozen(self) -> tuple[str, ...]:
        """The modules that stand still."""
        freezer = self._freezer
        return () if freezer is None else tuple(n for block in freezer.blocks[: freezer.count] for n in block.modules)

    def unfreeze(self) -> None:
        """Let everything learn again that did before; nothing freezes again in the current fit.

        Under DDP call it after training only: the reducer has no place for parameters that learn again.
        """
        if self._freezer is not None:
            self._freezer.undo()
        self._released = True

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse strategies under which parameters cannot stop learning one by one."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and not isinstance(trainer.strategy, DDPStrategy | SingleDeviceStrategy):
            kind = type(trainer.strategy).__name__
            raise ValueError(f"Expected a strategy that keeps whole parameters (one device or DDP), got {kind}.")

    def _prepare(self, trainer: Trainer, pl_module: LightningModule, stages: Sequence[str]) -> None:
        """Find the blocks; those of an earlier fit are let go."""
        if "train" not in stages:
            return
        if self._freezer is not None:
            self._freezer.undo()
        self._freezer = Freezer(find_blocks(pl_module, self.blocks))
        self._released = False
        endless = fraction_done(trainer) is None and 0 not in (trainer.max_epochs, trainer.max_steps)
        if self.schedule == "linear" and endless:
            raise ValueError(
                "Expected `max_epochs` or `max_steps` for `schedule='linear'`, got a training without end."
            )
        if self.schedule == "converged":
            self._source(trainer)

    def _begin(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Continue from the checkpoint, where there is one."""
        if self._anew and not self._resumed:
            self.history, self._calm, self._seen, self._frozen_before = [], 0, 0, 0
        self._freeze(trainer, self._frozen_before)

    def _watch(self, trainer: Trainer, pl_module: LightningModule, stage: str, batch: Any) -> None:
        """Freeze what is due."""
        freezer = self._freezer
        if freezer is None or self._released or stage != "train":
            return
        if self.schedule == "linear":
            epochs = trainer.current_epoch + trainer.fit_loop.batch_idx / trainer.num_training_batches
            done = (fraction_done(trainer, epochs) or 0.0) / self.until
            self._freeze(trainer, int(done * len(freezer.blocks) + _ROUNDING))
        freezer.hold()

    def _measure(
        self, trainer: Trainer, pl_module: LightningModule, stage: str, *, epoch: int, partial: bool
    ) -> Measured | None:
        freezer = self._freezer
        if freezer is None or stage != "train":
            return None
        if self.schedule == "converged" and not self._released:
            self._judge(trainer, freezer)
        values = {"layers": freezer.count, "parameters": freezer.parameters}
        return Measured(None, {f"{self.name}/{key}": float(value) for key, value in values.items()})

    def _progress(self) -> dict[str, Any]:
        count = 0 if self._freezer is None else self._freezer.count
        return {"frozen": count, "calm": self._calm, "seen": self._seen, "history": self.history}

    def _load_progress(self, state: Mapping[str, Any]) -> None:
        self._frozen_before, self._calm = state.get("frozen", 0), state.get("calm", 0)
        self._seen = state.get("seen", 0)
        self.history = [(int(step), int(count)) for step, count in state.get("history", ())]

    def _freeze(self, trainer: Trainer, count: int) -> None:
        """Freeze the first ``count`` blocks, but for the last one, which learns to the end."""
        freezer = self._freezer
        if trainer.world_size > 1 and self._group == LOCAL:
            return  # ranks that do not wait for each other cannot build a reducer together
        if freezer is None or self._released or not freezer.freeze(min(count, len(freezer.blocks) - 1)):
            return
        if not self.history or self.history[-1][1] < freezer.count:
            self.history.append((trainer.global_step, freezer.count))
        last = list(freezer.blocks[freezer.count - 1].modules)
        rank_zero_info(f"Frozen up to {last[-1]!r}: {freezer.count} of {len(freezer.blocks)} blocks.")
        _rebuild_reducer(trainer)

    def _judge(self, trainer: Trainer, freezer: Freezer) -> None:
        """Freeze the lowest learning block where a new window leaves it calm for long enough."""
        source = self._source(trainer)
        windows = len(source.epochs if isinstance(source, SimilarityMonitor) else _complete(source))
        if windows == self._seen or freezer.count >= len(freezer.blocks) - 1:
            return
        self._seen = windows
        self._calm = self._calm + 1 if self._at_rest(freezer.blocks[freezer.count].layers, source) else 0
        if all(gather(self._calm >= self.patience, self._group)):
            self._calm = 0
            self._freeze(trainer, freezer.count + 1)

    def _at_rest(self, layers: Sequence[str], source: SimilarityMonitor | SaturationMonitor) -> bool:
        """Return whether ``layers`` have not changed in the last window; without a watched one among them they go."""
        if isinstance(source, SimilarityMonitor):
            watched = [source.series[name] for name in layers if name in source.series]
            return all(values and values[-1] >= 1 - self.tolerance for values in watched)
        recent = _complete(source)[-2 * self.window - 1 :]
        known = [name for name in layers if recent and name in recent[-1].layers]
        if not known:
            return True
        rates = [report.learning_rates for report in recent]
        changes = profile_changes(saturation_series(recent, known), window=self.window, learning_rates=rates)
        return changes[-1] < self.tolerance

    def _source(self, trainer: Trainer) -> SimilarityMonitor | SaturationMonitor:
        for callback in callbacks_of(trainer):
            if isinstance(callback, SimilarityMonitor | SaturationMonitor) and callback.name == self.monitor:
                return callback
        raise ValueError(
            f"Expected a monitor called {self.monitor!r} among the Trainer's callbacks for `schedule='converged'`."
            " Add `SimilarityMonitor()`, or `SaturationMonitor()` with `monitor='saturation'`."
        )


def _complete(source: SaturationMonitor) -> list[SaturationReport]:
    return [report for report in source.reports if report.stage == source.stages[0] and not report.partial]


def _rebuild_reducer(trainer: Trainer) -> None:
    """Wrap the model again: DDP's reducer waits for a gradient of every parameter that learned when it was built."""
    strategy = trainer.strategy
    if isinstance(strategy, DDPStrategy) and isinstance(wrapped := strategy.model, DistributedDataParallel):
        strategy.model = wrapped.module
        del wrapped
        strategy.configure_ddp()
