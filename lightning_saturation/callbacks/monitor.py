"""Saturation of every layer while a Trainer runs."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import ref

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from lightning_saturation.callbacks.convergence import Convergence
from lightning_saturation.callbacks.progress import (
    batches_per_window,
    data_parallel_group,
    learning_rates,
    logged_step,
)
from lightning_saturation.callbacks.watching import WatchingCallback
from lightning_saturation.capture import LayerTracker, check_output_layers, choose_output_layers
from lightning_saturation.functional.plateau import Plateau
from lightning_saturation.functional.pooling import Pooling, check_pooling
from lightning_saturation.functional.spectrum import check_delta
from lightning_saturation.loggers import write_reports, write_scalars, write_window
from lightning_saturation.report import SaturationReport
from lightning_saturation.tracking import Window, saturation_tracker
from lightning_saturation.tracking.accumulation import CovarianceKind, MaxSamples, accumulation

_STAGES = ("train", "val", "test")
_SUMMARIES = ("average", "drift", "converged")


class SaturationMonitor(WatchingCallback):
    """Log, layer by layer and window by window, how much of each layer's feature space the data fills.

    A window is an epoch, or ``every_n_train_steps`` optimizer steps of training. When it closes, a
    :class:`SaturationReport` joins ``reports`` and these keys are logged: ``saturation/{stage}/{layer}``,
    ``saturation/{stage}/average``, ``saturation/{stage}/drift`` (how far any layer in the average may still move until
    the end of training) and ``saturation/{stage}/converged``. Every forward pass of a layer within a step counts, once;
    recomputation by activation checkpointing does not. Numbers are those over all ranks, and the same on each. The
    model carries hooks while it trains and nothing afterwards; no random number is drawn.

    Args:
        layers: names or globs of ``named_modules()`` to track, None for all linear, convolutional, recurrent and
            attention layers; see :func:`select_layers`.
        exclude: names or globs to leave out.
        output_layers: names or globs left out of the average; None stands for the last tracked layer to run, unless it
            is the only one, ``()`` for none.
        delta: share of the variance that the counted directions hold, in (0, 1].
        pooling: how an output becomes rows: ``"mean"``, ``"max"``, ``"median"`` or ``"last"`` over its positions
            (pixels, tokens), every one of the ``"positions"``, or all of them in one row with ``"flatten"``.
        stages: what is watched during ``fit``. ``Trainer.validate`` and ``Trainer.test`` always give theirs.
        every_n_train_steps: optimizer steps of a training window, None for one window per epoch.
        name: first part of the keys; tells several monitors in one Trainer apart.
        save_dir: folder for ``{name}.csv``, ``{name}.json`` and ``{name}.png`` at the end, however it comes.
        log_windows: write each window's table and spectra, and the heatmap so far, to the loggers when it closes. They
            make a run's folder grow: tables and pictures are files, window by window.
        covariance: ``"exact"``; ``"sketch"``, a 32nd of the memory, with certified bounds on saturation in report and
            table; ``"auto"``, exact up to 4,096 features.
        max_samples: rows to take of a layer in a window, evenly spread over it and over positions; None for all,
            ``"auto"`` for 16 times the layer's width and at least 4,096, which saves most of the cost where every
            position is a row. By default ``"auto"`` with ``pooling="positions"``, else None.
        state_device: where rows are accumulated, such as ``"cpu"`` to keep the GPU's memory free; None for the layer's
            own device.

    Raises:
        ValueError: for an argument out of range, here; for a layer that the model lacks or a model without supported
            layers, when fitting starts.

    Source: Shenk et al., *Spectral Analysis of Latent Representations*, sections 2 and 3.
    """

    def __init__(
        self,
        layers: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
        output_layers: Sequence[str] | None = None,
        delta: float = 0.99,
        pooling: Pooling = "mean",
        stages: Sequence[str] = ("train", "val"),
        every_n_train_steps: int | None = None,
        name: str = "saturation",
        save_dir: str | os.PathLike[str] | None = None,
        log_windows: bool = False,
        covariance: CovarianceKind = "auto",
        max_samples: MaxSamples = "default",
        state_device: str | None = None,
    ) -> None:
        self.stages = (stages,) if isinstance(stages, str) else tuple(stages)
        if not self.stages or not set(self.stages) <= set(_STAGES):
            raise ValueError(f"Expected `stages` to hold some of {_STAGES}, got {stages!r}.")
        if every_n_train_steps is not None and every_n_train_steps < 1:
            raise ValueError(f"Expected `every_n_train_steps` of at least 1 or None, got {every_n_train_steps}.")
        if not name:
            raise ValueError(f"Expected a `name` to begin the metric keys with, got {name!r}.")
        self.layers = layers
        self.exclude = exclude
        self.output_layers = output_layers
        self.delta = check_delta(delta)
        self.pooling = check_pooling(pooling)
        self.accumulation = accumulation(
            covariance=covariance, max_samples=max_samples, state_device=state_device, pooling=self.pooling
        )
        self.every_n_train_steps = every_n_train_steps
        self.name = name
        self.save_dir = save_dir
        self.log_windows = log_windows
        self.reports: list[SaturationReport] = []
        self._convergence = Convergence(name, self.stages)
        self._trainer: ref[Trainer] | None = None
        self._earlier = 0
        self._evaluates = False
        self._rates: tuple[float, ...] = ()
        self._rates_due = True
        self._closed_step = 0
        self._closed_epoch: int | None = None
        self._began_epoch = False

    @property
    def plateaus(self) -> Mapping[str, Sequence[Plateau]]:
        """Drift and convergence of every complete window since fitting started, by stage."""
        return self._convergence.plateaus

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start a history of its own in every Trainer that fits, under a name that no other monitor in it has."""
        if self._trainer is None or self._trainer() is not trainer:
            self._trainer = ref(trainer)
            self._earlier = len(self.reports)
        monitors = [c for c in trainer.callbacks if isinstance(c, SaturationMonitor)]  # type: ignore[attr-defined]
        taken = {other.name for other in monitors[: monitors.index(self)]}
        base, number = self.name, 2
        while self.name in taken:
            self.name, number = f"{base}-{number}", number + 1
        self._evaluates = stage != "fit"
        if stage == "fit":
            del self.reports[: self._earlier]
            self._earlier = 0
            self._convergence = Convergence(self.name, self.stages)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Attach to the layers; those made in ``configure_model`` exist by now."""
        tracker = self._attach(trainer, pl_module, [stage for stage in self.stages if stage != "test"])
        check_output_layers(tracker.names, self.output_layers)
        for stage in self.stages:
            check_output_layers(tracker.names, self._convergence.rule(trainer, stage).layers, argument="layers")

    def _track(self, trainer: Trainer, pl_module: LightningModule, stages: Sequence[str]) -> LayerTracker[Window]:
        return saturation_tracker(
            pl_module,
            stages=stages,
            layers=self.layers,
            exclude=self.exclude,
            pooling=self.pooling,
            kept=self.accumulation,
        )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note where training starts, which is not its beginning in a resumed run."""
        self._convergence.start(trainer)
        self._rates_due = True
        self._closed_step = trainer.global_step
        self._closed_epoch = None
        self._began_epoch = False
        self._expect("train", batches_per_window(trainer, "train", self.every_n_train_steps))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note how long the window will be."""
        self._expect("train", batches_per_window(trainer, "train", self.every_n_train_steps))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Note whether the epoch's window will be whole, and the learning rates with which a window begins.

        A resumed run may leave out the start of an epoch, and when a window closes, schedulers have already moved on.
        """
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        self._began_epoch |= batch_idx == 0
        if self._rates_due:
            self._rates, self._rates_due = learning_rates(trainer), False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Close the window where it holds enough steps."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        every = self.every_n_train_steps
        if every is None or "train" not in self.stages or trainer.global_step - self._closed_step < every:
            return
        self._closed_step = trainer.global_step
        self._log(trainer, pl_module, self._close(trainer, "train"), inside_batch=True)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the window of the epoch, unless validation at its end did."""
        super().on_train_epoch_end(trainer, pl_module)
        if self._closes_epochs and self._closed_epoch != trainer.current_epoch:
            self._close_epoch(trainer, pl_module, inside_batch=False)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close a window within which training ended, and write what loggers show of all reports."""
        if self.every_n_train_steps is not None and "train" in self.stages:
            self._close(trainer, "train", partial=True)
        self._write(trainer)
        super().on_train_end(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the model, and write what there is: a sweep's stop command and Ctrl-C end here."""
        super().on_exception(trainer, pl_module, exception)
        self._write(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the epoch's window before validation, so that whoever checks at its end finds the values."""
        if trainer.sanity_checking:
            return
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._attach(trainer, pl_module, ["val"])
        elif self._closes_epochs and trainer.is_last_batch:
            self._close_epoch(trainer, pl_module, inside_batch=True)
        elif "train" in self.stages:
            # Within a window its values so far serve whoever monitors them; they are no report and not charted.
            report = self._measure(trainer, "train", partial=True)
            values = {} if report is None else self._values(trainer, report)
            trainer.callback_metrics.update({key: torch.tensor(value) for key, value in values.items()})

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the validation window."""
        if not trainer.sanity_checking:
            self._log(trainer, pl_module, self._close(trainer, "val"), inside_batch=True)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what loggers show, in a run of ``Trainer.validate``."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._write(trainer)
        super().on_validation_end(trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Attach to the layers."""
        self._attach(trainer, pl_module, ["test"])

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the test window."""
        self._log(trainer, pl_module, self._close(trainer, "test"), inside_batch=False)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what loggers show."""
        self._write(trainer)
        super().on_test_end(trainer, pl_module)

    @property
    def state_key(self) -> str:
        """The key of this callback's state in a checkpoint: its name, so that other arguments may change."""
        if self._trainer is None:  # Trainers refuse two callbacks of one key before `setup` can tell these apart
            return self._generate_state_key(name=self.name, number=id(self))
        return self._generate_state_key(name=self.name)

    def state_dict(self) -> dict[str, Any]:
        """Return the history: all numbers, and the eigenvalues of each stage's last report."""
        last = {report.stage: index for index, report in enumerate(self.reports)}
        return {"reports": [r.to_state(eigenvalues=last[r.stage] == i) for i, r in enumerate(self.reports)]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue a history; arguments stay those of this run.

        Lightning also calls this before it evaluates a checkpoint, which is no reason to forget what came after it.
        """
        if not self._evaluates:
            self.reports[:] = [SaturationReport.from_state(state) for state in state_dict["reports"]]

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_trainer": None}  # a copy belongs to no Trainer

    @property
    def _closes_epochs(self) -> bool:
        return self.every_n_train_steps is None and "train" in self.stages

    def _close_epoch(self, trainer: Trainer, pl_module: LightningModule, *, inside_batch: bool) -> None:
        self._closed_epoch = trainer.current_epoch
        values = self._close(trainer, "train", partial=not (self._began_epoch and trainer.is_last_batch))
        self._log(trainer, pl_module, values, inside_batch=inside_batch)

    def _close(self, trainer: Trainer, stage: str, *, partial: bool = False) -> dict[str, float]:
        """Close the window of ``stage`` and return the values to log; none where no rank saw anything."""
        if self._tracker is None or stage not in self._tracker.windows:
            return {}
        report = self._measure(trainer, stage, partial=partial)
        if trainer.is_global_zero and not (partial and report is None):
            self._tracker.warn_about_missing([] if report is None else list(report.layers))
        if report is None:
            return {}
        self._tracker.windows[stage].reset()
        self._rates_due |= stage == "train"
        self.reports.append(report)
        return self._values(trainer, report)

    def _measure(self, trainer: Trainer, stage: str, *, partial: bool) -> SaturationReport | None:
        """Return the report of the window of ``stage`` as it stands; a collective call."""
        window = None if self._tracker is None else self._tracker.windows.get(stage)
        if window is None:
            return None
        layers = window.statistics(delta=self.delta, group=data_parallel_group(trainer))
        if not layers:
            return None
        return SaturationReport(
            layers=layers,
            stage=stage,
            epoch=trainer.current_epoch,
            step=trainer.global_step,
            delta=self.delta,
            output_layers=choose_output_layers(list(layers), self.output_layers),
            partial=partial,
            learning_rates=self._rates if trainer.state.fn == TrainerFn.FITTING else (),
        )

    def _values(self, trainer: Trainer, report: SaturationReport) -> dict[str, float]:
        """Return what is logged of ``report``, by key; missing numbers are left out."""
        values = {_layer_key(layer): value for layer, value in report.saturation.items()}
        values["average"] = report.average
        if trainer.state.fn == TrainerFn.FITTING:
            settled = self._convergence.judge(trainer, [*(r for r in self.reports if r is not report), report])
            values |= {"drift": settled.drift, "converged": float(settled.converged)}
        values = {f"{self.name}/{report.stage}/{key}": value for key, value in values.items()}
        return {key: value for key, value in values.items() if not math.isnan(value)}

    def _log(
        self, trainer: Trainer, pl_module: LightningModule, values: Mapping[str, float], *, inside_batch: bool
    ) -> None:
        """Log ``values`` of the last report, which are the same on all ranks: they need no further reduction."""
        if trainer.barebones:  # logs nothing, and would say so at every attempt
            return
        # `Trainer.validate` and `Trainer.test` print and return what they hand to loggers themselves.
        training = trainer.state.fn == TrainerFn.FITTING
        shown = {f"{self.name}/train/average", f"{self.name}/train/drift"}
        for key, value in values.items():
            pl_module.log(
                key,
                value,
                prog_bar=key in shown,
                logger=False if training else None,
                batch_size=1,
                sync_dist=True,
                rank_zero_only=True,
                add_dataloader_idx=False,
            )
        if trainer.is_global_zero and values:
            step = logged_step(trainer, inside_batch=inside_batch)
            # Not through the Trainer: it would let a logger that fails end the training, and hands what is logged in a
            # step on every `log_every_n_steps` only, while a window always belongs.
            if training:
                write_scalars(trainer.loggers, {**values, "epoch": trainer.current_epoch}, step=step)
            if self.log_windows:
                write_window(trainer.loggers, self.reports[-1], history=self.reports, step=step, name=self.name)

    def _write(self, trainer: Trainer) -> None:
        """Write what loggers and files show of a whole run, once, on one rank."""
        if trainer.is_global_zero and self.reports:
            step = logged_step(trainer)
            write_reports(trainer.loggers, self.reports, step=step, name=self.name, save_dir=self.save_dir)


def _layer_key(layer: str) -> str:
    """Return ``layer`` as the last part of a key: charts are grouped by what comes before the last slash."""
    key = layer.replace("/", "_")
    return f"layer {key}" if key in _SUMMARIES else key
