"""Spectra of layers as operators, every so many epochs of a Trainer's run."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor

from lightning_saturation.arguments import check_count, check_flag, check_patterns
from lightning_saturation.capture.hooks import input_shapes
from lightning_saturation.covariance.ranks import gather
from lightning_saturation.loggers.dispatch import layer_key, write_figure, write_table
from lightning_saturation.operators.density import check_options
from lightning_saturation.operators.measure import operator_layers, spectra_over_ranks
from lightning_saturation.operators.plots import evolution_figure, histogram_figure, norms_figure
from lightning_saturation.operators.report import SpectrumReport
from lightning_saturation.training.instrument import Measured
from lightning_saturation.training.monitor import Monitor
from lightning_saturation.training.progress import learning_rates

_QUANTITIES = ("largest_eigenvalue", "stable_rank", "decay_exponent")
_MOST_STRIPS = 6


class SpectrumMonitor(Monitor[SpectrumReport]):
    """Measure the eigenvalues of every layer as a linear operator: before training, and every ``every_n_epochs``.

    The first forward pass of training tells the layers' input shapes; the hooks for it leave with its batch. A
    :class:`SpectrumReport` joins ``reports`` and ``{name}/largest_eigenvalue/layers/{layer}``, the same of
    ``stable_rank`` and ``decay_exponent``, are logged; when fitting ends, pictures of the last histograms, of norms
    over training and of the evolution of layers, and a table. Ranks share the layers and get the same numbers to the
    last bit. No random number is drawn from a generator of the user's. ``bins``, ``spikes``, ``probes`` and ``degree``
    are those of :func:`~lightning_saturation.functional.eigenvalue_histogram`.

    Args:
        layers: names or globs to measure, None for all linear and convolutional ones; see :func:`select_layers`.
        exclude: names or globs to leave out.
        every_n_epochs: epochs between two measurements. The last epoch is always measured.
        seconds: time budget of one measurement, None for none. Layers that do not fit get a coarser histogram, or none
            and a reason in the report's ``missing``.
        seed: of the random vectors; the same ones at each measurement, so that differences are the network's.
        progress: whether to show a bar while measuring.
        name: first part of the keys.
        log_windows: draw the histograms at every measurement, not at the end only; these are files, one each.
        log_layers: whether each layer has charts of its own; averages, tables and pictures are logged either way.

    Raises:
        ValueError: for an argument out of range, here; for an unknown layer, when fitting starts.

    Source: *Evolution of Eigenvalue Decay in Deep Networks*, section 3.
    """

    def __init__(
        self,
        layers: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
        every_n_epochs: int = 1,
        seconds: float | None = None,
        bins: int = 250,
        spikes: int = 32,
        probes: int | None = None,
        degree: int = 400,
        seed: int = 0,
        progress: bool = True,
        name: str = "spectrum",
        log_windows: bool = False,
        log_layers: bool = True,
    ) -> None:
        super().__init__(name=name)
        self.log_windows = check_flag("log_windows", log_windows)
        self.every_n_epochs = check_count("every_n_epochs", every_n_epochs)
        self._options = check_options(
            seconds=seconds, bins=bins, spikes=spikes, probes=probes, degree=degree, seed=seed
        )
        self.layers = check_patterns("layers", layers)
        self.exclude = check_patterns("exclude", exclude, optional=False)
        self.seconds = seconds
        self.log_layers = check_flag("log_layers", log_layers)
        self.progress = check_flag("progress", progress)
        self._watched: ExitStack | None = None
        self._warned: set[tuple[str, str]] = set()
        self._shapes: dict[str, set[tuple[int, ...]]] = {}

    def report(self) -> SpectrumReport:
        """Return the last report; a ``ValueError`` where there is none."""
        if not self.reports:
            raise ValueError("Expected a measurement, got none yet.")
        return self.reports[-1]

    def plot(self) -> Figure:
        """Return a matplotlib figure of the last report: a histogram for each layer, of at most twelve."""
        return self.report().plot()

    def _prepare(self, trainer: Trainer, pl_module: LightningModule, stages: Sequence[str]) -> None:
        if "train" in stages:
            operator_layers(pl_module, self.layers, self.exclude)  # raises for names that do not exist
            if not self._resumed:
                self._shapes = {}

    def _watch(self, trainer: Trainer, pl_module: LightningModule, stage: str, batch: Any) -> None:
        if stage == "train" and not self._shapes and self._watched is None:
            layers = operator_layers(pl_module, self.layers, self.exclude)
            with ExitStack() as stack:
                self._shapes = stack.enter_context(input_shapes(pl_module, layers))
                self._watched = stack.pop_all()

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Measure the untrained network, between the first forward pass and the first change of a weight."""
        with self._guard("watch a batch"):
            self._look_away()
        if trainer.global_step == 0 and not self._reports:
            self._close(trainer, pl_module, "train", inside_batch=True, before_training=True)

    def _look_away(self) -> None:
        if self._watched is not None:
            self._watched.close()
            self._watched = None

    def _leave(self) -> None:
        self._look_away()

    def _measure(
        self, trainer: Trainer, pl_module: LightningModule, stage: str, *, epoch: int, partial: bool
    ) -> Measured | None:
        done = epoch + 1
        due = done % self.every_n_epochs == 0 or trainer.should_stop or done == trainer.max_epochs
        if stage != "train":
            return None
        everyone = gather((self._shapes, due), self._group)
        shapes = {
            name: {size for each, _ in everyone for size in each.get(name, ())} for each, _ in everyone for name in each
        }
        if not shapes or not any(due for _, due in everyone):
            return None
        report = spectra_over_ranks(
            operator_layers(pl_module, self.layers, self.exclude),
            shapes,
            self._options,
            seconds=self.seconds,
            progress=self.progress,
            group=self._group,
        )
        report = replace(report, epoch=done, step=trainer.global_step, learning_rates=learning_rates(trainer))
        if trainer.is_global_zero:
            self._warn_about(report.missing)
        values = {
            f"{self.name}/{quantity}/{layer_key(record['layer'])}": float(record[quantity])
            for record in report.to_records()
            for quantity in (_QUANTITIES if self.log_layers else ())
            if record[quantity] is not None
        }
        return Measured(report, values)

    def _warn_about(self, missing: Mapping[str, str]) -> None:
        """Warn of layers without a spectrum, once for each reason."""
        new = {layer: reason for layer, reason in missing.items() if (layer, reason) not in self._warned}
        self._warned.update(new.items())
        if new:
            reasons = "; ".join(f"{layer}: {reason}" for layer, reason in new.items())
            warnings.warn(f"No spectrum of these layers: {reasons}", stacklevel=2)

    def _arguments(self) -> dict[str, Any]:
        return {**super()._arguments(), **self._options}

    def _write_window(self, trainer: Trainer, measured: Measured, step: int) -> None:
        if self.log_windows and measured.report.layers:
            draw = partial(histogram_figure, measured.report)
            write_figure(trainer.loggers, f"{self.name}/histograms", draw, step=step)

    def _write(self, trainer: Trainer, step: int) -> None:
        known = [report for report in self._reports if report.layers]
        if not known:
            return
        records = [record for report in known for record in report.to_records()]
        write_table(trainer.loggers, f"{self.name}/table", records, step=step)
        if not self.log_windows:  # else it is there by now
            write_figure(trainer.loggers, f"{self.name}/histograms", partial(histogram_figure, known[-1]), step=step)
        write_figure(trainer.loggers, f"{self.name}/norms", partial(norms_figure, known), step=step)
        layers = list(known[-1].layers)
        for layer in layers if len(layers) <= _MOST_STRIPS else [*layers[:1], *layers[1 - _MOST_STRIPS :]]:
            key = f"{self.name}/evolution/{layer.replace('/', '_')}"
            write_figure(trainer.loggers, key, partial(evolution_figure, known, layer), step=step)

    def _progress(self) -> dict[str, Any]:
        return {**super()._progress(), "shapes": {name: sorted(each) for name, each in self._shapes.items()}}

    def _load_progress(self, state: Mapping[str, Any]) -> None:
        self._shapes = {name: {*map(tuple, each)} for name, each in state.get("shapes", {}).items()}
        self._reports[:] = [SpectrumReport.from_state(each) for each in state.get("reports", ())]

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_watched": None}  # a copy watches nothing
