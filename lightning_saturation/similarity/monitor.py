"""Learning dynamics: how layers approach their final form while a Trainer runs."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from matplotlib.figure import Figure

from lightning_saturation.arguments import check_choice, check_count, check_flag, check_shares
from lightning_saturation.capture.evaluation import Forward
from lightning_saturation.capture.masks import Mask
from lightning_saturation.capture.pooling import Pooling
from lightning_saturation.capture.represent import PROBE_POOLINGS, Rows
from lightning_saturation.capture.select import CaptureOptions
from lightning_saturation.covariance.ranks import gather
from lightning_saturation.covariance.spectrum import check_delta
from lightning_saturation.loggers.dispatch import layer_key, write_figure, write_table
from lightning_saturation.similarity.compare import DEFAULT_DELTA
from lightning_saturation.similarity.comparison import compare_rows, compare_same_layers
from lightning_saturation.similarity.history import History
from lightning_saturation.similarity.report import LearningDynamics
from lightning_saturation.similarity.views import Method
from lightning_saturation.stopping.settled import Settling
from lightning_saturation.stopping.stopping import rule_for
from lightning_saturation.training.handover import HandedBack
from lightning_saturation.training.instrument import Measured
from lightning_saturation.training.monitor import Monitor
from lightning_saturation.training.probing import Probing
from lightning_saturation.training.progress import epochs_done, fraction_done


class SimilarityMonitor(Monitor[None]):
    """Keep the layers' outputs for a fixed probe set while the network learns, and show how they settle.

    After every ``every_n_epochs`` epochs each layer is compared with itself one window earlier:
    ``similarity/layers/{layer}`` and ``similarity/average`` are logged, and ``similarity/train/change``, the mean of
    1 − similarity over the watched layers, which :class:`SaturationStopping` can watch with ``name="similarity"``;
    :class:`FreezeTraining` watches single layers. At the end of training ``dynamics`` holds, for each share of training
    in ``at``, the matrix of the layers then × the layers at the end, and loggers get the picture.

    Probes pass through the model in evaluation mode, outside of the training step, in the run's precision; no random
    number of the run is drawn, and batch norm statistics stand still. They pass through ``forward``, which gets as much
    of a batch as it takes; where the module has none, or it fails, through the step that the run calls, on a copy.

    Memory is that of one row per probe and layer, in float32, for each share in ``at`` and for the last window; a
    checkpoint holds them too, and the probes where these are at most 64 MiB.

    Args:
        layers: names or globs to compare, None for all; see :func:`select_layers`.
        exclude: names or globs to leave out.
        method: ``"svcca"``, ``"pwcca"``, ``"cka"`` or ``"debiased_cka"``.
        delta: share of variance to keep; None is 0.99 for SVCCA, everything otherwise.
        pooling: how outputs become one row per sample.
        probes: batches of inputs, or a tensor of them; None takes the first samples that training delivers. No loader
            is ever read a second time: the run would get other batches.
        samples: how many probes to use at most. Several times the layers' widths, else correlations mean little.
        at: shares of training, in [0, 1], whose layers are kept; the end is always among them.
        every_n_epochs: epochs of a window.
        name: first part of the keys.
        mask: which positions are no padding, as in :class:`SaturationMonitor`.
        forward: ``forward(module, batch)`` runs the module on probes, where its own ``forward`` takes other arguments.
        log_layers: whether each layer has charts of its own; averages, tables and pictures are logged either way.

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
        mask: Mask = None,
        forward: Forward | None = None,
        log_layers: bool = True,
    ) -> None:
        check_choice("method", method, ("svcca", "pwcca", "cka", "debiased_cka"))  # those of rows
        if pooling not in PROBE_POOLINGS:
            raise ValueError(f"Expected `pooling` to be one of {PROBE_POOLINGS}, got {pooling!r}.")
        if probes is not None and not isinstance(probes, Iterable):
            raise TypeError(f"Expected `probes` to be batches of inputs, a tensor of them or None, got {probes!r}.")
        super().__init__(name=name)
        self.samples = check_count("samples", samples, least=2)
        self.every_n_epochs = check_count("every_n_epochs", every_n_epochs)
        self.at = tuple(sorted({*check_shares("at", at), 1.0}))
        self.watched = CaptureOptions(layers, exclude, pooling, mask)
        if not (forward is None or callable(forward)):
            raise TypeError(f"Expected `forward` to be a function of the module and a batch or None, got {forward!r}.")
        self.forward = forward
        self.log_layers = check_flag("log_layers", log_layers)
        self.method = method
        self.delta = DEFAULT_DELTA.get(method) if delta is None else check_delta(delta)
        self.probes = probes
        self.dynamics: LearningDynamics | None = None
        self.history = History()
        self.snapshots = {}
        self._probing = Probing(probes, self.samples, self.watched, forward=forward, guard=self._guard)
        self._last: Rows = {}
        self._final: Rows = {}

    history = HandedBack[History]()
    snapshots = HandedBack[dict[float, Rows]]()
    kept = ("_history", "_snapshots", "_last")
    parts = ("watched",)

    @property
    def series(self) -> dict[str, list[float]]:
        """By layer, for each window its similarity to itself one window earlier; NaN where there is none."""
        return self.history.series

    @property
    def epochs(self) -> list[int]:
        """The epoch of each window."""
        return self.history.epochs

    @property
    def settling(self) -> dict[str, list[Settling]]:
        """What each window said of settling, under ``"train"``."""
        return {"train": self.history.settling}

    def report(self) -> LearningDynamics:
        """Return the layers during training compared with those at its end; a ``ValueError`` before it has ended."""
        if self.dynamics is None or not self.dynamics.panes:
            raise ValueError("Expected a training that has ended with layers to compare, got none.")
        return self.dynamics

    def plot(self) -> Figure:
        """Return a matplotlib figure of the report: a pane for each share of training."""
        return self.report().plot()

    def _prepare(self, trainer: Trainer, pl_module: LightningModule, stages: Sequence[str]) -> None:
        if "train" in stages:
            self.watched.select(pl_module)  # raises for names that do not exist

    def _begin(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.dynamics, self._final, self.meets_in_batches = None, {}, True
        anew = self._anew and not self._resumed
        if anew:
            self.history, self.snapshots, self._last = History(), {}, {}
        self._probing.begin(trainer, pl_module, anew=anew, compare=not self._last)
        if self.probes is not None:
            self._meet_probes(trainer, pl_module)

    def _watch(self, trainer: Trainer, pl_module: LightningModule, stage: str, batch: Any) -> None:
        if stage == "train":
            self._probing.watch(batch)

    def _meet_probes(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make sure that there are probes, and what the first weights make of them; a collective call."""
        if self._probing.is_due:
            self._last = self._probing.first_rows(trainer, pl_module, self._group)
            if self.at[0] == 0 and not self.epochs:
                self.snapshots = {0.0: self._last}

    def _after_batch(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the layers where a chosen share of training is reached."""
        due = [share for share in self.at if share not in self.snapshots and 0 < share < 1]
        self.meets_in_batches = bool(due)
        done = fraction_done(trainer, epochs_done(trainer, in_batch=True)) or 0.0
        if due and done >= due[0]:
            self._meet_probes(trainer, pl_module)
            rows = self._probing.rows(trainer, pl_module)
            self.snapshots = {**self.snapshots, **{share: rows for share in due if share <= done}}

    def _measure(
        self, trainer: Trainer, pl_module: LightningModule, stage: str, *, epoch: int, partial: bool
    ) -> Measured | None:
        """Compare every layer with itself one window earlier."""
        if stage != "train" or (epoch + 1) % self.every_n_epochs:
            return None
        self._meet_probes(trainer, pl_module)
        rows = self._probing.rows(trainer, pl_module)
        # Replicas may differ in the last digits, decisions that rest on these values must not.
        values = gather(compare_same_layers(self._last, rows, method=self.method, delta=self.delta), self._group)[0]
        history = self.history.with_window(epoch, values, self._clock.rates, rule_for(trainer, self.name, "train"))
        logged = {}
        known = [value for value in values.values() if not math.isnan(value)]
        if known:
            logged["average"] = math.fsum(known) / len(known)
        last = history.settling[-1]
        logged |= {"train/change": last.change, "train/converged": float(last.converged)}
        if self.log_layers:
            logged |= {layer_key(layer): value for layer, value in values.items()}
        return Measured(None, {f"{self.name}/{key}": value for key, value in logged.items()}, (history, rows))

    def _keep(self, measured: Measured) -> None:
        self.history, self._last = measured.judged

    def _end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._meet_probes(trainer, pl_module)
        self._final = self._probing.rows(trainer, pl_module)

    def _finish(self, trainer: Trainer) -> None:
        """Compare what was kept with the layers at the end, and show it; where a run failed, with the last window's."""
        final = self._final or self._last
        if final:
            with self._guard("compare its layers with those at the end"):
                kept = {**self.snapshots, 1.0: final} if trainer.is_global_zero else {}
                compare = partial(compare_rows, method=self.method, delta=self.delta)
                panes = {share: compare(rows, final) for share, rows in sorted(kept.items())}
                self.dynamics = LearningDynamics(panes, self.series, self.epochs)
        super()._finish(trainer)

    def _has_something_to_write(self) -> bool:
        return self.dynamics is not None and bool(self.dynamics.panes)

    def _write(self, trainer: Trainer, step: int) -> None:
        key, dynamics = f"{self.name}/learning_dynamics", self.dynamics
        if dynamics is not None:
            write_table(trainer.loggers, f"{key}_table", dynamics.to_records(), step=step)
            write_figure(trainer.loggers, key, dynamics.plot, step=step)

    def _progress(self) -> dict[str, Any]:
        return {**self.history.to_state(), "snapshots": self.snapshots, "last": self._last, **self._probing.to_state()}

    def _load_progress(self, state: Mapping[str, Any]) -> None:
        self.history = History.from_state(state)
        self.snapshots, self._last = dict(state.get("snapshots", {})), dict(state.get("last", {}))
        samples = len(next(iter(self._last.values()))) if self._last else None
        if not self._probing.load_state(state, samples=samples):
            self.snapshots, self._last = {}, {}
            warnings.warn(
                f"{type(self).__name__} cannot go on with the probes of the checkpoint: it holds none, or others than"
                " `probes`. Layers are compared from here on only; pass the same `probes` to both runs to go on.",
                stacklevel=2,
            )
