"""The dimension of the data in every layer, while a Trainer runs."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from matplotlib.figure import Figure

from lightning_saturation.arguments import check_count, check_flag, check_patterns
from lightning_saturation.capture.masks import Mask
from lightning_saturation.capture.pooling import Pooling, check_pooling
from lightning_saturation.capture.select import CaptureOptions, choose_output_layers
from lightning_saturation.capture.tracker import LayerTracker
from lightning_saturation.covariance.ranks import gather
from lightning_saturation.dimension.layer_dimension import DimensionOptions, input_rows, label_rows
from lightning_saturation.dimension.plots import dimension_figure, dimension_history_figure
from lightning_saturation.dimension.report import INPUT, DimensionReport
from lightning_saturation.dimension.row_window import RowWindow
from lightning_saturation.dimension.two_nn_law import FEWEST
from lightning_saturation.drawing.windows import windows_of
from lightning_saturation.loggers.dispatch import layer_key, write_figure, write_table
from lightning_saturation.training.instrument import Measured
from lightning_saturation.training.layer_monitor import LayerMonitor


class DimensionMonitor(LayerMonitor[RowWindow, DimensionReport]):
    """Log, epoch by epoch, how many dimensions the data fills in every layer: TwoNN (nonlinear) and PCA (linear).

    At the end of each stage of an epoch a :class:`DimensionReport` joins ``reports`` and these keys are logged:
    ``dimension/{stage}/layers/{layer}`` and ``dimension/{stage}/last_hidden`` (TwoNN),
    ``dimension/{stage}/pca/layers/{layer}``. When training ends, loggers get the profile, the history and a table of
    all reports. Numbers are those over all ranks, and the same on each. The model carries hooks while it trains and
    nothing afterwards; global random state is neither used nor changed. ``layers``, ``exclude``, ``output_layers``,
    ``per_class``, ``pooling``, ``delta``, ``discard``, ``estimator`` and ``mask`` are those of
    :func:`measure_dimension`.

    Args:
        samples: how many samples are kept over an epoch and all ranks, chosen uniformly, the same for all layers.
        stages: what is watched during ``fit``. Within a validation epoch the weights stand still; rows of a training
            epoch come from weights that move, and their dimension is that of the mixture.
        every_n_epochs: measure in every n-th epoch only, the last of each n.
        max_bytes: memory for the rows of all layers, on the device where they are. Layers that do not fit are left out
            with one warning; fewer ``samples`` or ``pooling="mean"`` make room.
        seed: of the choice of samples.
        name: first part of the keys; tells several monitors in one Trainer apart.
        log_layers: whether each layer has charts of its own; averages, tables and pictures are logged either way.

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
        mask: Mask = None,
        log_layers: bool = True,
    ) -> None:
        super().__init__(name=name, stages=stages)
        self.samples = check_count("samples", samples, least=FEWEST)
        self.every_n_epochs = check_count("every_n_epochs", every_n_epochs)
        self.max_bytes = check_count("max_bytes", max_bytes)
        self.seed = check_count("seed", seed, least=0)
        self.watched = CaptureOptions(layers, exclude, check_pooling(pooling), mask)
        self.output_layers = check_patterns("output_layers", output_layers)
        self.log_layers = check_flag("log_layers", log_layers)
        self._options = DimensionOptions(delta, discard, estimator, check_flag("per_class", per_class), seed=seed)
        self._warned: set[str] = set()

    parts = ("watched", "_options")

    def report(self, stage: str | None = None) -> DimensionReport:
        """Return the last report of ``stage``, by default of training, or of the stage measured last without it.

        Raises ``ValueError`` where there is none.
        """
        return windows_of(self.reports, stage)[-1]

    def plot(self, stage: str | None = None) -> Figure:
        """Return a matplotlib figure of that report: the dimension over the depth of the network."""
        return self.report(stage).plot()

    def _track(self, trainer: Trainer, pl_module: LightningModule, stages: Sequence[str]) -> LayerTracker[RowWindow]:
        # Ranks see different samples and draw different keys for them.
        seed = self.seed * 1_000_003 + trainer.global_rank
        return LayerTracker(
            pl_module,
            lambda names: RowWindow((INPUT, *names), samples=self.samples, max_bytes=self.max_bytes, seed=seed),
            self.watched,
            stages=stages,
        )

    def _watch(self, trainer: Trainer, pl_module: LightningModule, stage: str, batch: Any) -> None:
        window = self._window(stage)
        if window is None or not self._is_due(trainer, trainer.current_epoch):
            return
        super()._watch(trainer, pl_module, stage, batch)
        window.labels = label_rows(batch)
        rows = input_rows(batch)
        if rows is not None:
            window.add(INPUT, rows)

    def _is_due(self, trainer: Trainer, epoch: int) -> bool:
        return trainer.state.fn != TrainerFn.FITTING or (epoch + 1) % self.every_n_epochs == 0

    def _measure(
        self, trainer: Trainer, pl_module: LightningModule, stage: str, *, epoch: int, partial: bool
    ) -> Measured | None:
        window = self._window(stage)
        # Which stages are watched and which epochs are due is the same on all ranks; what they saw may not be.
        if window is None or not self._is_due(trainer, epoch):
            return None
        layers = window.dimensions(self._options, group=self._group)
        if trainer.is_global_zero:
            self._warn_about(window.refused)
        if not layers or self._tracker is None:
            return None
        outputs, followed = gather((self._tracker.outputs(stage), self._tracker.followed), self._group)[0]
        ran = [name for name in layers if name != INPUT]
        report = DimensionReport(
            layers=layers,
            stage=stage,
            epoch=epoch,
            step=trainer.global_step,
            delta=self._options.delta,
            output_layers=choose_output_layers(ran, self.output_layers, outputs),
            partial=partial,
            followed=followed,
        )
        values = {"last_hidden": report.last_hidden_dimension}
        if self.log_layers:
            values |= {layer_key(name): layer.two_nn for name, layer in layers.items()}
            values |= {f"pca/{layer_key(name)}": layer.pca for name, layer in layers.items()}
        return Measured(report, {f"{self.name}/{stage}/{key}": value for key, value in values.items()})

    def _warn_about(self, refused: Mapping[str, int]) -> None:
        new = {name: cost for name, cost in refused.items() if name not in self._warned}
        self._warned.update(new)
        if new:
            warnings.warn(
                f"No dimension for {list(new)}: their rows need {sum(new.values()) / 2**20:,.0f} MiB more than"
                f" `max_bytes` = {self.max_bytes} leaves. Take fewer `samples`, other `layers` or `pooling='mean'`.",
                stacklevel=2,
            )

    def _write(self, trainer: Trainer, step: int) -> None:
        records = [record for report in self._reports for record in report.to_records()]
        write_table(trainer.loggers, f"{self.name}/table", records, step=step)
        draw = partial(dimension_history_figure, self._reports)
        write_figure(trainer.loggers, f"{self.name}/history", draw, step=step)
        for stage, report in {report.stage: report for report in self._reports}.items():
            draw = partial(dimension_figure, report)
            write_figure(trainer.loggers, f"{self.name}/{stage}/profile", draw, step=step)

    def _load_progress(self, state: Mapping[str, Any]) -> None:
        self._reports[:] = [DimensionReport.from_state(each) for each in state.get("reports", ())]
