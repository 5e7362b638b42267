"""Learning dynamics: how layers approach their final form while a Trainer runs."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_saturation.callbacks.probing import probe_batches
from lightning_saturation.callbacks.progress import fraction_done, learning_rates, logged_step
from lightning_saturation.callbacks.stopping import rule_for
from lightning_saturation.capture import select_layers
from lightning_saturation.functional.plateau import Plateau, projected_change, rates_changed
from lightning_saturation.functional.pooling import Pooling
from lightning_saturation.functional.spectrum import check_delta
from lightning_saturation.loggers import write_figure, write_table
from lightning_saturation.report.dynamics import LearningDynamics
from lightning_saturation.tracking.compare import DEFAULT_DELTA
from lightning_saturation.tracking.probes import PROBE_POOLINGS, Rows, compare_rows, compare_same_layers, represent
from lightning_saturation.tracking.views import Method, check_method

_SUMMARIES = ("average", "train")


class SimilarityMonitor(Callback):
    """Keep what the layers make of a fixed probe set while the network learns, and show how they come to rest.

    After every ``every_n_epochs`` epochs each layer is compared with itself one window earlier: ``similarity/{layer}``
    and ``similarity/average`` are logged, and ``similarity/train/drift``, the largest change that any layer has made or
    is projected to make by the end of training, which :class:`SaturationStopping` and :class:`FreezeTraining` can watch
    with ``name="similarity"``. At the end of training ``dynamics`` holds, for each share of training in ``at``, the
    matrix of the layers then × the layers at the end, and loggers get the picture. The probe set passes through the
    model in evaluation mode, outside of the training step; no random number of the run is drawn, and batch norm
    statistics stand still.

    Memory is that of one row per probe and layer, in float32, for each share in ``at`` and for the last window; a
    checkpoint holds them too.

    Args:
        layers: names or globs to compare, None for all; see :func:`select_layers`.
        exclude: names or globs to leave out.
        method: ``"svcca"``, ``"pwcca"``, ``"cka"`` or ``"debiased_cka"``.
        delta: share of variance to keep; None is 0.99 for SVCCA, everything otherwise.
        pooling: how outputs become one row per sample.
        probes: batches of inputs; None takes the first validation samples, or training samples where there are none.
        samples: how many probes to use at most. Several times the layers' widths, else correlations mean little.
        at: shares of training, in [0, 1], whose layers are kept; the end is always among them.
        every_n_epochs: epochs of a window.
        name: first part of the keys.

    Raises:
        ValueError: for an argument out of range.

    Source: Raghu et al., *SVCCA*, section 4.1 and figure 4.
    """

    def __init__(
        self,
        layers: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
        method: Method = "svcca",
        delta: float | None = None,
        pooling: Pooling = "mean",
        probes: Iterable[Any] | None = None,
        samples: int = 1024,
        at: Sequence[float] = (0.0, 0.35, 0.75, 1.0),
        every_n_epochs: int = 1,
        name: str = "similarity",
    ) -> None:
        if check_method(method) not in ("svcca", "pwcca", "cka", "debiased_cka"):
            raise ValueError(f"Expected `method` to be a similarity of rows, got {method!r}.")
        if pooling not in PROBE_POOLINGS:
            raise ValueError(f"Expected `pooling` to be one of {PROBE_POOLINGS}, got {pooling!r}.")
        if not all(0 <= share <= 1 for share in at):
            raise ValueError(f"Expected shares `at` in [0, 1], got {at}.")
        if samples < 2:
            raise ValueError(f"Expected at least 2 `samples`, got {samples}.")
        if every_n_epochs < 1:
            raise ValueError(f"Expected `every_n_epochs` of at least 1, got {every_n_epochs}.")
        if not name:
            raise ValueError(f"Expected a `name` to begin the metric keys with, got {name!r}.")
        self.layers, self.exclude, self.pooling = layers, exclude, pooling
        self.method = method
        self.delta = DEFAULT_DELTA.get(method) if delta is None else check_delta(delta)
        self.probes, self.samples = probes, samples
        self.at = tuple(sorted({*at, 1.0}))
        self.every_n_epochs, self.name = every_n_epochs, name
        self.dynamics: LearningDynamics | None = None
        self.series: dict[str, list[float]] = {}
        self.epochs: list[int] = []
        self.plateaus: Mapping[str, Sequence[Plateau]] = {"train": []}
        self.snapshots: dict[float, Rows] = {}
        self._last: Rows = {}
        self._rates: tuple[float, ...] = ()
        self._since = 0
        self._batches: list[Any] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the layers' names before anything else costs time."""
        select_layers(pl_module, self.layers, self.exclude)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the probes, and keep the layers as they are before the first step."""
        self._batches = probe_batches(trainer, self.probes, self.samples)
        self.dynamics = None
        if trainer.global_step == 0:
            self.series, self.epochs, self.snapshots, self._since = {}, [], {}, 0
            self.plateaus = {"train": []}
            self._rates = learning_rates(trainer)
            self._last = self._represent(trainer, pl_module)
            if self.at[0] == 0:
                self.snapshots[0.0] = self._last
        elif not self._last:
            self._last = self._represent(trainer, pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Keep the layers where a chosen share of training is reached."""
        due = [share for share in self.at if share not in self.snapshots and 0 < share < 1]
        if due and (fraction_done(trainer) or 0.0) >= due[0]:
            rows = self._represent(trainer, pl_module)
            done = fraction_done(trainer) or 0.0
            self.snapshots |= {share: rows for share in due if share <= done}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare every layer with itself one window earlier."""
        if (trainer.current_epoch + 1) % self.every_n_epochs:
            return
        rows = self._represent(trainer, pl_module)
        values = self._compared(trainer, rows)
        self._last = rows
        rates = learning_rates(trainer)
        if rates_changed(self._rates, rates):
            self._since = len(self.epochs)
        self._rates = rates
        self.epochs.append(trainer.current_epoch)
        for layer, value in values.items():
            self.series.setdefault(layer, []).append(value)
        plateau = self._judge(trainer)
        self.plateaus["train"].append(plateau)  # type: ignore[attr-defined]
        known = [value for value in values.values() if not math.isnan(value)]
        logged = {layer if layer not in _SUMMARIES else f"layer {layer}": value for layer, value in values.items()}
        logged = {key.replace("/", "_"): value for key, value in logged.items() if not math.isnan(value)}
        if known:
            logged["average"] = math.fsum(known) / len(known)
        logged |= {"train/drift": plateau.drift, "train/converged": float(plateau.converged)}
        for key, value in logged.items():
            self._log(pl_module, f"{self.name}/{key}", value)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare what was kept with the layers at the end, and show it."""
        self._finish(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Show what there is: Ctrl-C and a sweep's stop command end here."""
        # What failed may be the model itself or another rank: the last window stands for the end.
        if self._batches and self._last and trainer.global_step:
            self._show(trainer, self._last)

    def state_dict(self) -> dict[str, Any]:
        """Return progress: series, kept rows, and the last window's."""
        return {
            "series": self.series,
            "epochs": self.epochs,
            "since": self._since,
            "rates": list(self._rates),
            "plateaus": [tuple(plateau) for plateau in self.plateaus["train"]],
            "snapshots": self.snapshots,
            "last": self._last,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the progress of an earlier run; arguments stay those of this one."""
        self.series, self.epochs = state_dict["series"], state_dict["epochs"]
        self._since, self._rates = state_dict["since"], tuple(state_dict["rates"])
        self.plateaus = {"train": [Plateau(*plateau) for plateau in state_dict["plateaus"]]}
        self.snapshots, self._last = state_dict["snapshots"], state_dict["last"]

    @property
    def state_key(self) -> str:
        """The key of this callback's state in a checkpoint."""
        return self._generate_state_key(name=self.name)

    def _represent(self, trainer: Trainer, pl_module: LightningModule) -> Rows:
        with trainer.strategy.precision_plugin.forward_context():
            return represent(
                pl_module,
                [_on(batch, pl_module.device) for batch in self._batches],
                layers=self.layers,
                exclude=self.exclude,
                pooling=self.pooling,
            )

    def _compared(self, trainer: Trainer, rows: Rows) -> dict[str, float]:
        values = compare_same_layers(self._last, rows, method=self.method, delta=self.delta)
        # Replicas may differ in the last digits, decisions that rest on these values must not.
        return trainer.strategy.broadcast(values)

    def _judge(self, trainer: Trainer) -> Plateau:
        """Return by how much the watched layers changed in the last window or may still, by the stopper's rule."""
        rule = rule_for(trainer, self.name, "train")
        done = fraction_done(trainer)
        windows = len(self.epochs)
        horizon = None if not done else windows * (1 - done) / done
        changes = []
        for layer, values in self.series.items():
            if rule.watches(layer):
                recent = [value for value in values[self._since :] if not math.isnan(value)]
                made = 1 - recent[-1] if recent else 1.0
                changes.append(max(made, projected_change(recent, horizon=horizon, window=rule.window)))
        drift = max(changes, default=1.0)
        return Plateau(drift, windows - self._since >= rule.window and drift < rule.tolerance)

    def _finish(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._batches:
            self._show(trainer, self._represent(trainer, pl_module))

    def _show(self, trainer: Trainer, final: Rows) -> None:
        kept = {**self.snapshots, 1.0: final}
        panes = {}
        if trainer.is_global_zero:
            for share, rows in sorted(kept.items()):
                panes[share] = compare_rows(rows, final, method=self.method, delta=self.delta)
        self.dynamics = LearningDynamics(panes, self.series, self.epochs)
        if not panes:
            return
        key, step = f"{self.name}/learning_dynamics", logged_step(trainer)
        write_table(trainer.loggers, f"{key}_table", self.dynamics.to_records(), step=step)
        if trainer.loggers:
            try:
                write_figure(trainer.loggers, key, self.dynamics.plot(), step=step)
            except ImportError as error:
                warnings.warn(f"No picture of the learning dynamics: {error}", stacklevel=2)

    def _log(self, pl_module: LightningModule, key: str, value: float) -> None:
        pl_module.log(key, value, batch_size=1, sync_dist=True, rank_zero_only=True)


def _on(batch: Any, device: torch.device) -> Any:
    """Return ``batch`` with its tensors, however deep, on ``device``."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {key: _on(value, device) for key, value in batch.items()}
    return [_on(value, device) for value in batch] if isinstance(batch, list) else batch
