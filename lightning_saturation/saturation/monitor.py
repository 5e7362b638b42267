"""Saturation of every layer while a Trainer runs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from matplotlib.figure import Figure

from lightning_saturation.arguments import check_flag, check_folder, check_patterns
from lightning_saturation.capture.masks import Mask
from lightning_saturation.capture.pooling import Pooling, check_pooling
from lightning_saturation.capture.select import CaptureOptions, check_output_layers
from lightning_saturation.capture.tracker import LayerTracker
from lightning_saturation.covariance.accumulation import CovarianceKind, MaxSamples, accumulation
from lightning_saturation.covariance.spectrum import check_delta
from lightning_saturation.drawing.windows import windows_of
from lightning_saturation.loggers.dispatch import layer_key
from lightning_saturation.saturation.plots.verdict import verdict_figure
from lightning_saturation.saturation.report.diagnosis import Diagnosis
from lightning_saturation.saturation.report.history import from_state, to_state, without_eigenvalues
from lightning_saturation.saturation.report.report import SaturationReport
from lightning_saturation.saturation.report.windows import settling
from lightning_saturation.saturation.window import Window, report_of, saturation_tracker
from lightning_saturation.saturation.writing import write_reports, write_window
from lightning_saturation.stopping.settled import Settling
from lightning_saturation.stopping.stopping import rule_for
from lightning_saturation.training.instrument import Measured
from lightning_saturation.training.layer_monitor import LayerMonitor
from lightning_saturation.training.monitor import Monitor
from lightning_saturation.training.progress import callbacks_of
from lightning_saturation.training.task_metrics import TaskMetrics
from lightning_saturation.training.window_closer import offer


class SaturationMonitor(LayerMonitor[Window, SaturationReport]):
    """Log, layer by layer and window by window, how much of each layer's feature space the data fills.

    A window is an epoch, or ``every_n_train_steps`` optimizer steps of training. When it closes, a
    :class:`SaturationReport` joins ``reports``, of which the last of each stage holds eigenvalues, and these keys are
    logged: ``saturation/{stage}/layers/{layer}``, ``saturation/{stage}/average``, ``saturation/{stage}/change`` (how
    far the layers in the average have moved over 5 windows, in the mean) and ``saturation/{stage}/converged`` (1 once
    that was small for long enough; see :class:`SaturationStopping`). Each forward pass of a layer within a step counts,
    once; recomputation by activation checkpointing does not. Numbers are those over all ranks, and the same on each.
    The model carries hooks while it trains and nothing afterwards; no random number is drawn.

    Args:
        layers: names or globs of ``named_modules()`` to track, None for all linear, convolutional, recurrent and
            attention layers; see :func:`select_layers`.
        exclude: names or globs to leave out.
        output_layers: names or globs left out of the average; None stands for all tracked layers whose output feeds no
            other one, ``()`` for none. Such a layer of more than 4,096 features is not measured unless it, or any other
            layer, is named in ``layers`` or here.
        delta: share of the variance that the counted directions hold, in (0, 1].
        pooling: how an output becomes rows: ``"mean"``, ``"max"``, ``"median"`` or ``"last"`` over its positions
            (pixels, tokens), every one of the ``"positions"``, or all of them in one row with ``"flatten"``.
        stages: what is watched during ``fit``. ``Trainer.validate`` and ``Trainer.test`` are always watched.
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
        mask: which positions of a batch are no padding: the key of a (samples, positions) tensor in dict batches, such
            as ``"attention_mask"``, or a function of a batch. Padding is left out of every output that has these
            positions; ``report.masked`` names them.
        log_layers: whether each layer has charts of its own; averages, tables and pictures are logged either way.

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
        mask: Mask = None,
        log_layers: bool = True,
    ) -> None:
        super().__init__(name=name, stages=stages, every_n_train_steps=every_n_train_steps)
        self.watched = CaptureOptions(layers, exclude, check_pooling(pooling), mask)
        self.output_layers = check_patterns("output_layers", output_layers)
        self.delta = check_delta(delta)
        self.accumulation = accumulation(
            covariance=covariance, max_samples=max_samples, state_device=state_device, pooling=pooling
        )
        self.log_layers = check_flag("log_layers", log_layers)
        self.save_dir = check_folder("save_dir", save_dir)
        self.log_windows = check_flag("log_windows", log_windows)
        self.settling: dict[str, tuple[Settling, ...]] = dict.fromkeys(self.stages, ())
        """Change and convergence of every complete window since fitting started, by stage."""
        self._metrics = TaskMetrics()

    shown: ClassVar[dict[str, str]] = {"train/average": "train", "train/change": "change"}
    kept = ("_reports", "settling")
    parts = ("watched", "accumulation")

    def report(self, stage: str | None = None) -> SaturationReport:
        """Return the last report of ``stage``, by default of training, or of the stage seen last without it.

        Raises ``ValueError`` where no window of the stage has closed, as do ``diagnose`` and ``plot``.
        """
        return windows_of(self.reports, stage)[-1]

    def diagnose(self, stage: str | None = None) -> Diagnosis:
        """Return what the windows of ``stage`` suggest; see ``SaturationReport.diagnose``."""
        windows = windows_of(self.reports, stage)
        return windows[-1].diagnose(history=windows)

    def plot(self, stage: str | None = None, *, metric: str | None = None) -> Figure:
        """Return a matplotlib figure of ``stage``: the verdict, a bar for each layer, average and metric over time.

        ``metric`` names what the module logs and the picture draws; None chooses an accuracy where there is one, else
        another metric or a loss, of validation rather than of training. A ``ValueError`` for one that was not logged.
        """
        return verdict_figure(windows_of(self.reports, stage), metric=self._metrics.curve(metric))

    def _track(self, trainer: Trainer, pl_module: LightningModule, stages: Sequence[str]) -> LayerTracker[Window]:
        return saturation_tracker(
            pl_module, self.watched, stages=stages, output_layers=self.output_layers, kept=self.accumulation
        )

    def _prepare(self, trainer: Trainer, pl_module: LightningModule, stages: Sequence[str]) -> None:
        super()._prepare(trainer, pl_module, stages)
        if self._tracker is not None and trainer.state.fn == TrainerFn.FITTING:
            self.settling = dict.fromkeys(self.stages, ())
            for stage in self.stages:
                rule = rule_for(trainer, self.name, stage)
                check_output_layers(self._tracker.names, rule.layers, argument="layers")

    def _glance(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the values so far to whoever monitors them; they are no report and not charted."""
        report = self._report(trainer, "train", epoch=trainer.current_epoch, partial=True)
        offer(trainer, {} if report is None else self._values(report, None))

    def _measure(
        self, trainer: Trainer, pl_module: LightningModule, stage: str, *, epoch: int, partial: bool
    ) -> Measured | None:
        report = self._report(trainer, stage, epoch=epoch, partial=partial)
        if self._tracker is not None and trainer.is_global_zero and not (partial and report is None):
            self._tracker.warn_about_missing([] if report is None else list(report.layers))
        if report is None:
            return None
        judged = self._judged(trainer, report)
        return Measured(report, self._values(report, judged), judged)

    def _report(self, trainer: Trainer, stage: str, *, epoch: int, partial: bool) -> SaturationReport | None:
        """Return the report of the window of ``stage`` as it stands; a collective call."""
        if self._tracker is None or stage not in self._tracker.windows:
            return None
        found = report_of(self._tracker, stage, delta=self.delta, output_layers=self.output_layers, group=self._group)
        rates = self._clock.rates if trainer.state.fn == TrainerFn.FITTING else ()
        at = replace(found, epoch=epoch, step=trainer.global_step, partial=partial, learning_rates=rates)
        return at if found.layers else None

    def _judged(self, trainer: Trainer, report: SaturationReport) -> Settling | None:
        if trainer.state.fn != TrainerFn.FITTING or report.partial:
            return None
        complete = [each for each in [*self._reports, report] if each.stage == report.stage and not each.partial]
        return settling(complete, rule_for(trainer, self.name, report.stage))

    def _forget(self, earlier: int) -> None:
        super()._forget(earlier)
        self._metrics = TaskMetrics()

    def _after_epoch(self, trainer: Trainer, epoch: int) -> None:
        monitors = [c for c in callbacks_of(trainer) if isinstance(c, Monitor)]
        self._metrics.take(trainer, epoch, without=tuple(f"{monitor.name}/" for monitor in monitors))

    def _values(self, report: SaturationReport, judged: Settling | None) -> dict[str, float]:
        """Return what is logged of ``report``, by key."""
        values = {"average": report.average}
        if judged is not None:
            values |= {"change": judged.change, "converged": float(judged.converged)}
        if self.log_layers:
            values |= {layer_key(layer): value for layer, value in report.saturation.items()}
        return {f"{self.name}/{report.stage}/{key}": value for key, value in values.items()}

    def _keep(self, measured: Measured) -> None:
        stage, judged = measured.report.stage, measured.judged
        before = [index for index, report in enumerate(self._reports) if report.stage == stage][-1:]
        for index in before:  # eigenvalues of all windows would grow without bound
            self._reports[index] = without_eigenvalues(self._reports[index])
        self._reports.append(measured.report)
        if judged is not None and stage in self.settling:
            self.settling = {**self.settling, stage: (*self.settling[stage], judged)}

    def _write_window(self, trainer: Trainer, measured: Measured, step: int) -> None:
        if self.log_windows:
            write_window(trainer.loggers, measured.report, history=self._reports, step=step, name=self.name)

    def _write(self, trainer: Trainer, step: int) -> None:
        write_reports(
            trainer.loggers,
            self._reports,
            step=step,
            name=self.name,
            save_dir=self.save_dir,
            metric=self._metrics.curve(),
        )

    def _progress(self) -> dict[str, Any]:
        return {"reports": to_state(self._reports), "metrics": self._metrics.to_state()}

    def _load_progress(self, state: Mapping[str, Any]) -> None:
        self._reports[:] = from_state(state.get("reports", ()))
        self._metrics.load_state(state.get("metrics"))
