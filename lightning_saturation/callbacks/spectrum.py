"""Spectra of layers as operators, every so many epochs of a Trainer's run."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_saturation.callbacks.progress import data_parallel_group, learning_rates, logged_step
from lightning_saturation.capture.shapes import InputShapes
from lightning_saturation.functional.density import check_options
from lightning_saturation.loggers import write_figure, write_scalars, write_table
from lightning_saturation.plots.spectra import evolution_figure, histogram_figure, norms_figure
from lightning_saturation.report import SpectrumReport
from lightning_saturation.tracking import operator_layers, spectra_over_ranks

_QUANTITIES = ("largest_eigenvalue", "stable_rank", "decay_exponent")
_MOST_STRIPS = 6


class SpectrumMonitor(Callback):
    """Measure the eigenvalues of every layer as a linear operator: before training, and every ``every_n_epochs``.

    The first forward pass of training tells the layers' input shapes; the hooks for it leave with its batch. A
    :class:`SpectrumReport` joins ``reports`` and ``{name}/largest_eigenvalue/{layer}``, ``{name}/stable_rank/{layer}``
    and ``{name}/decay_exponent/{layer}`` are logged, with a picture of the histograms; when fitting ends, norms over
    training, the evolution of layers and a table. Ranks share the layers and get the same numbers to the last bit. No
    random number is drawn from a generator of the user's.

    Args:
        layers: names or globs to measure, None for all linear and convolutional ones; see :func:`select_layers`.
        exclude: names or globs to leave out.
        every_n_epochs: epochs between two measurements. The last epoch is always measured.
        seconds: time budget of one measurement, None for none. Layers that do not fit get a coarser histogram, or none
            and a reason in the report's ``missing``.
        bins: see :func:`~lightning_saturation.functional.eigenvalue_histogram`, as for the options that follow.
        spikes: largest eigenvalues found one by one.
        probes: random vectors, None for as many as the layer's size asks for.
        degree: of the polynomials.
        seed: of the random vectors; the same ones at each measurement, so that differences are the network's.
        progress: whether to show a bar while measuring.
        name: first part of the keys.

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
    ) -> None:
        self._options: dict[str, Any] = {
            "bins": bins,
            "spikes": spikes,
            "probes": probes,
            "degree": degree,
            "seed": seed,
        }
        check_options(every_n_epochs=every_n_epochs, seconds=seconds, **self._options)
        if not name:
            raise ValueError(f"Expected a `name` to begin the metric keys with, got {name!r}.")
        self.layers = layers
        self.exclude = exclude
        self.every_n_epochs = every_n_epochs
        self.seconds = seconds
        self.progress = progress
        self.name = name
        self.reports: list[SpectrumReport] = []
        self._watched: InputShapes | None = None
        self._shapes: dict[str, set[tuple[int, ...]]] = {}
        self._trainer: int | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start a history of its own in every Trainer that fits."""
        if stage == "fit" and self._trainer != id(trainer):
            self._trainer = id(trainer)
            self.reports.clear()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that the layers exist; those made in ``configure_model`` do by now."""
        operator_layers(pl_module, self.layers, self.exclude)
        self._shapes = {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Look at the shapes of the first batch."""
        if not self._shapes and self._watched is None:
            self._watched = InputShapes(pl_module, operator_layers(pl_module, self.layers, self.exclude))
            self._watched.attach()

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Measure the untrained network, between the first forward pass and the first change of a weight."""
        if self._watched is not None:
            self._leave()
            if trainer.global_step == 0 and not self.reports:
                self._measure(trainer, pl_module, epoch=0)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Leave the model where there was no backward pass."""
        self._leave()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure, where it is time."""
        epoch = trainer.current_epoch + 1
        last = trainer.should_stop or epoch == trainer.max_epochs
        if self._shapes and (epoch % self.every_n_epochs == 0 or last):
            self._measure(trainer, pl_module, epoch=epoch)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what loggers show of all reports."""
        self._write(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the model, and write what there is."""
        self._leave()
        self._write(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the model."""
        self._leave()

    @property
    def state_key(self) -> str:
        """The key of this callback's state in a checkpoint."""
        return self._generate_state_key(name=self.name)

    def state_dict(self) -> dict[str, Any]:
        """Return the history."""
        return {"reports": [report.to_state() for report in self.reports]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue a history; arguments stay those of this run."""
        self.reports[:] = [SpectrumReport.from_state(state) for state in state_dict["reports"]]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_watched": None}  # a copy watches nothing

    def _leave(self) -> None:
        if self._watched is not None:
            self._watched.detach()
            self._shapes, self._watched = self._watched.shapes, None

    def _measure(self, trainer: Trainer, pl_module: LightningModule, *, epoch: int) -> None:
        """Measure now; a collective call."""
        report = spectra_over_ranks(
            operator_layers(pl_module, self.layers, self.exclude),
            self._shapes,
            self._options,
            seconds=self.seconds,
            progress=self.progress,
            group=data_parallel_group(trainer),
        )
        report = replace(report, epoch=epoch, step=trainer.global_step, learning_rates=learning_rates(trainer))
        first = not self.reports
        self.reports.append(report)
        values = {
            f"{self.name}/{quantity}/{record['layer'].replace('/', '_')}": float(record[quantity])
            for record in report.to_records()
            for quantity in _QUANTITIES
            if record[quantity] is not None
        }
        trainer.callback_metrics.update({key: torch.tensor(value) for key, value in values.items()})
        if trainer.is_global_zero:
            if first and report.missing:
                reasons = "; ".join(f"{layer}: {reason}" for layer, reason in report.missing.items())
                warnings.warn(f"No spectrum of these layers: {reasons}", stacklevel=2)
            step = logged_step(trainer)
            write_scalars(trainer.loggers, values, step=step)
            if report.layers:
                self._draw(trainer, f"{self.name}/histograms", step, histogram_figure, report)

    def _write(self, trainer: Trainer) -> None:
        """Write what loggers show of a whole run, once, on one rank."""
        known = [report for report in self.reports if report.layers]
        if not trainer.is_global_zero or not known or not trainer.loggers:
            return
        step = logged_step(trainer)
        write_table(trainer.loggers, f"{self.name}/table", [r for it in known for r in it.to_records()], step=step)
        self._draw(trainer, f"{self.name}/norms", step, norms_figure, known)
        layers = list(known[-1].layers)
        for layer in layers if len(layers) <= _MOST_STRIPS else [*layers[:1], *layers[1 - _MOST_STRIPS :]]:
            self._draw(
                trainer, f"{self.name}/evolution/{layer.replace('/', '_')}", step, evolution_figure, known, layer
            )

    def _draw(self, trainer: Trainer, key: str, step: int, figure: Any, *args: Any) -> None:
        if not trainer.loggers:
            return
        try:
            write_figure(trainer.loggers, key, figure(*args), step=step)
        except ImportError as error:
            warnings.warn(f"Pictures of spectra are left out. {error}", stacklevel=2)
