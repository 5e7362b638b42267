"""The dimension of the data in every layer, while a Trainer runs."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from lightning_saturation.callbacks.progress import data_parallel_group, logged_step
from lightning_saturation.callbacks.watching import WatchingCallback
from lightning_saturation.capture import LayerTracker, check_output_layers, choose_output_layers
from lightning_saturation.functional.pareto import FEWEST
from lightning_saturation.functional.pooling import Pooling, check_pooling
from lightning_saturation.loggers import write_figure, write_table
from lightning_saturation.plots import dimension_figure, dimension_history_figure
from lightning_saturation.report import DimensionReport
from lightning_saturation.report.dimension import INPUT
from lightning_saturation.tracking.layer_dimension import DimensionOptions, input_rows, label_rows
from lightning_saturation.tracking.row_window import RowWindow

_STAGES = ("train", "val", "test")


class DimensionMonitor(WatchingCallback):
    """Log, epoch by epoch, how many dimensions the data fills in every layer: TwoNN (nonlinear) and PCA (linear).

    At the end of each stage of an epoch a :class:`DimensionReport` joins ``reports`` and these keys are logged:
    ``dimension/{stage}/{layer}`` and ``dimension/{stage}/last_hidden`` (TwoNN), ``dimension/{stage}/pca/{layer}``. When
    training ends, loggers get the profile, the history and a table of all reports. Numbers are those over all ranks,
    and the same on each. The model carries hooks while it trains and nothing afterwards; global random state is neither
    used nor changed.

    Args:
        layers: names or globs of ``named_modules()``, None for all linear, convolutional, recurrent and attention ones.
        exclude: names or globs to leave out.
        output_layers: names or globs that ``last_hidden`` looks past, None for the last layer to run.
        per_class: also give the dimension of each class alone; needs batches of inputs and integer labels.
        samples: how many samples are kept over an epoch and all ranks, chosen uniformly, the same for all layers.
        pooling: how an output becomes a row; ``"flatten"``, the whole representation, is what the source measures.
        delta: share of variance that the PCA dimension holds.
        discard: share of the samples with the largest distance ratios that TwoNN leaves out.
        estimator: ``"fit"`` or ``"mle"``, see :func:`~lightning_saturation.functional.two_nn_dimension`.
        stages: what is watched during ``fit``. Within a validation epoch the weights stand still; rows of a training
            epoch come from weights that move, and their dimension is that of the mixture.
        every_n_epochs: measure in every n-th epoch only, the last of each n.
        max_bytes: memory for the rows of all layers, on the device where they are. Layers that do not fit are left out
            with one warning; fewer ``samples`` or ``pooling="mean"`` make room.
        seed: of the choice of samples.
        name: first part of the keys; tells several monitors in one Trainer apart.

    Raises:
        ValueError: for an argument out of range, here; for a layer that the model lacks, when fitting starts.

    Source: Ansuini et al., *Intrinsic dimension of data representations in deep neural networks*, 2019.
    """

    def __init__(
        self,
        layers: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
        output_layers: Sequence[str] | None = None,
        per_class: bool = False,
        samples: int = 1000,
        pooling: Pooling = "flatten",
        delta: float = 0.9,
        discard: float = 0.1,
        estimator: Literal["fit", "mle"] = "fit",
        stages: Sequence[str] = ("val",),
        every_n_epochs: int = 1,
        max_bytes: int = 2**30,
        seed: int = 0,
        name: str = "dimension",
    ) -> None:
        self.stages = (stages,) if isinstance(stages, str) else tuple(stages)
        if not self.stages or not set(self.stages) <= set(_STAGES):
            raise ValueError(f"Expected `stages` to hold some of {_STAGES}, got {stages!r}.")
        if samples < FEWEST:
            raise ValueError(f"Expected `samples` of at least {FEWEST}, got {samples}.")
        if every_n_epochs < 1:
            raise ValueError(f"Expected `every_n_epochs` of at least 1, got {every_n_epochs}.")
        if not name:
            raise ValueError(f"Expected a `name` to begin the metric keys with, got {name!r}.")
        self.layers, self.exclude, self.output_layers = layers, exclude, output_layers
        self.pooling = check_pooling(pooling)
        self.samples, self.max_bytes, self.seed = samples, max_bytes, seed
        self.every_n_epochs = every_n_epochs
        self.name = name
        self.reports: list[DimensionReport] = []
        self._options = DimensionOptions(delta, discard, estimator, per_class, seed=seed)
        self._trainer: int | None = None
        self._warned: set[str] = set()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start a history of its own in every Trainer that fits, under a name that no other monitor in it has."""
        if stage == "fit" and self._trainer != id(trainer):
            self._trainer = id(trainer)
            self.reports.clear()
        monitors = [c for c in trainer.callbacks if isinstance(c, DimensionMonitor)]  # type: ignore[attr-defined]
        taken = {other.name for other in monitors[: monitors.index(self)]}
        base, number = self.name, 2
        while self.name in taken:
            self.name, number = f"{base}-{number}", number + 1

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Attach to the layers; those made in ``configure_model`` exist by now."""
        tracker = self._attach(trainer, pl_module, [stage for stage in self.stages if stage != "test"])
        check_output_layers(tracker.names, self.output_layers)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Keep rows of this batch, in the epochs that are measured."""
        self._watch("train" if self._is_due(trainer) else None, batch)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure what training saw."""
        super().on_train_epoch_end(trainer, pl_module)
        self._close(trainer, pl_module, "train")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Attach to the layers, in a run of ``Trainer.validate``."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._attach(trainer, pl_module, ["val"])

    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, *_: Any) -> None:
        """Keep rows of this batch, unless it is a sanity check."""
        fitting = trainer.state.fn == TrainerFn.FITTING
        self._watch(None if trainer.sanity_checking or (fitting and not self._is_due(trainer)) else "val", batch)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure what validation saw."""
        if not trainer.sanity_checking:
            self._close(trainer, pl_module, "val")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what loggers show, in a run of ``Trainer.validate``."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._write(trainer)
        super().on_validation_end(trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Attach to the layers."""
        self._attach(trainer, pl_module, ["test"])

    def on_test_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, *_: Any) -> None:
        """Keep rows of this batch."""
        self._watch("test", batch)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure what the test saw."""
        self._close(trainer, pl_module, "test")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what loggers show."""
        self._write(trainer)
        super().on_test_end(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what loggers show of all reports."""
        self._write(trainer)
        super().on_train_end(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the model, and write what there is: a sweep's stop command and Ctrl-C end here."""
        super().on_exception(trainer, pl_module, exception)
        self._write(trainer)

    @property
    def state_key(self) -> str:
        """The key of this callback's state in a checkpoint: what is measured, so that two monitors keep apart."""
        return self._generate_state_key(name=self.name, layers=self.layers, exclude=self.exclude, pooling=self.pooling)

    def state_dict(self) -> dict[str, Any]:
        """Return the history."""
        return {"reports": [report.to_state() for report in self.reports]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue a history; arguments stay those of this run."""
        self.reports[:] = [DimensionReport.from_state(state) for state in state_dict["reports"]]

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Continue the history of the monitor of this name also where its other arguments have changed."""
        states = checkpoint.get("callbacks", {})
        if self.state_key not in states:
            prefix = f"{type(self).__qualname__}{{'name': {self.name!r},"
            for key in [key for key in states if key.startswith(prefix)]:
                self.load_state_dict(states[key])

    def _track(self, trainer: Trainer, pl_module: LightningModule, stages: Sequence[str]) -> LayerTracker[RowWindow]:
        # Ranks see different samples and draw different keys for them.
        seed = self.seed * 1_000_003 + trainer.global_rank
        return LayerTracker(
            pl_module,
            lambda names: RowWindow((INPUT, *names), samples=self.samples, max_bytes=self.max_bytes, seed=seed),
            stages=stages,
            layers=self.layers,
            exclude=self.exclude,
            pooling=self.pooling,
        )

    def _is_due(self, trainer: Trainer) -> bool:
        return (trainer.current_epoch + 1) % self.every_n_epochs == 0

    def _watch(self, stage: str | None, batch: Any) -> None:
        self._record(stage)
        if self._tracker is not None and stage in self._tracker.windows:
            window = self._tracker.windows[stage]
            window.labels = label_rows(batch)
            rows = input_rows(batch)
            if rows is not None:
                window.add(INPUT, rows)

    def _close(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Measure the window of ``stage``, keep the report and log it; a collective call where there is a window."""
        window = None if self._tracker is None else self._tracker.windows.get(stage)
        # Which stages are watched and which epochs are due is the same on all ranks; what they saw may not be.
        if window is None or (trainer.state.fn == TrainerFn.FITTING and not self._is_due(trainer)):
            return
        layers = window.dimensions(self._options, group=data_parallel_group(trainer))
        if trainer.is_global_zero:
            self._warn_about(window.refused)
        window.reset()
        if not layers:
            return
        ran = [name for name in layers if name != INPUT]
        report = DimensionReport(
            layers=layers,
            stage=stage,
            epoch=trainer.current_epoch,
            step=trainer.global_step,
            delta=self._options.delta,
            output_layers=choose_output_layers(ran, self.output_layers),
        )
        self.reports.append(report)
        self._log(pl_module, _values(self.name, report))

    def _warn_about(self, refused: Mapping[str, int]) -> None:
        new = {name: cost for name, cost in refused.items() if name not in self._warned}
        self._warned.update(new)
        if new:
            warnings.warn(
                f"No dimension for {list(new)}: their rows need {sum(new.values()) / 2**20:,.0f} MiB more than"
                f" `max_bytes` = {self.max_bytes} leaves. Take fewer `samples`, other `layers` or `pooling='mean'`.",
                stacklevel=2,
            )

    def _log(self, pl_module: LightningModule, values: Mapping[str, float]) -> None:
        """Log ``values``, which are the same on all ranks: they need no further reduction."""
        logger = bool(pl_module.trainer.loggers)
        for key, value in values.items():
            pl_module.log(
                key, value, logger=logger, batch_size=1, sync_dist=True, rank_zero_only=True, add_dataloader_idx=False
            )

    def _write(self, trainer: Trainer) -> None:
        """Write what loggers show of a whole run, once, on one rank."""
        if not trainer.is_global_zero or not self.reports or not trainer.loggers:
            return
        step = logged_step(trainer)
        records = [record for report in self.reports for record in report.to_records()]
        write_table(trainer.loggers, f"{self.name}/table", records, step=step)
        try:
            figures = {f"{self.name}/history": dimension_history_figure(self.reports)}
            last = {report.stage: report for report in self.reports}
            figures |= {f"{self.name}/{stage}/profile": dimension_figure(report) for stage, report in last.items()}
        except ImportError as error:
            warnings.warn(f"Pictures of dimensions are left out. {error}", stacklevel=2)
            return
        for key, figure in figures.items():
            write_figure(trainer.loggers, key, figure, step=step)


def _values(name: str, report: DimensionReport) -> dict[str, float]:
    """Return what is logged of ``report``, by key; missing numbers are left out."""
    values = {f"{_key(layer)}": dimension.two_nn for layer, dimension in report.layers.items()}
    values |= {f"pca/{_key(layer)}": dimension.pca for layer, dimension in report.layers.items()}
    values["last_hidden"] = report.last_hidden_dimension
    return {f"{name}/{report.stage}/{key}": value for key, value in values.items() if not math.isnan(value)}


def _key(layer: str) -> str:
    """Return ``layer`` as the last part of a key: charts are grouped by what comes before the last slash."""
    key = layer.replace("/", "_")
    return f"layer {key}" if key == "last_hidden" else key
