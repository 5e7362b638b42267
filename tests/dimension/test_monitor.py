"""Dimensions while a Trainer runs: what is logged, what is left behind, what survives."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_saturation.dimension.measure import measure_dimension
from lightning_saturation.dimension.monitor import DimensionMonitor
from lightning_saturation.functional import two_nn_dimension

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec.*"),
    pytest.mark.filterwarnings("ignore:.*fewer than.*|.*number of training batches.*"),
]


class Model(LightningModule):
    def __init__(self, failing: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.hidden, self.head = nn.Linear(8, 6), nn.Linear(6, 3)
        self.failing = failing

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.hidden(x).relu())

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        if self.failing and self.current_epoch == 1:
            raise RuntimeError("out of luck")
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self(batch[0])

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self(batch[0])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def data(samples: int = 120) -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(samples, 3, generator=generator) @ torch.randn(3, 8, generator=generator)
    return TensorDataset(x, torch.arange(samples) % 3)


def loader(samples: int = 120, batch_size: int = 32) -> DataLoader[Any]:
    return DataLoader(data(samples), batch_size=batch_size)


def trainer(folder: Path, *callbacks: Any, **options: Any) -> Trainer:
    settings = {"max_epochs": 2, "logger": False, "enable_checkpointing": False, "log_every_n_steps": 1, **options}
    return Trainer(
        default_root_dir=folder,
        callbacks=list(callbacks),
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


def test_a_report_per_epoch_that_equals_the_measurement(tmp_path: Path) -> None:
    model, monitor = Model(), DimensionMonitor()
    run = trainer(tmp_path, monitor)
    run.fit(model, loader(), loader())
    assert [(report.stage, report.epoch) for report in monitor.reports] == [("val", 0), ("val", 1)]
    last = monitor.reports[-1]
    assert list(last.layers) == ["input data", "hidden", "head"]
    expected = measure_dimension(model, loader(), progress=False)
    for name, layer in expected.layers.items():
        assert last.layers[name].two_nn == pytest.approx(layer.two_nn, rel=1e-4)
        assert last.layers[name].pca == layer.pca
    assert last.layers["input data"].two_nn == pytest.approx(float(two_nn_dimension(data()[:][0])), rel=1e-9)
    assert float(run.callback_metrics["dimension/val/last_hidden"]) == pytest.approx(last.layers["hidden"].two_nn)
    assert float(run.callback_metrics["dimension/val/layers/head"]) == pytest.approx(last.layers["head"].two_nn)
    assert float(run.callback_metrics["dimension/val/pca/layers/hidden"]) == last.layers["hidden"].pca
    assert hooks(model) == 0


def test_training_is_the_same_with_and_without(tmp_path: Path) -> None:
    results = []
    for callbacks in ([], [DimensionMonitor(stages=("train", "val"))]):
        model = Model()
        trainer(tmp_path, *callbacks).fit(model, DataLoader(data(), batch_size=32, shuffle=True), loader())
        results.append((*model.state_dict().values(), torch.get_rng_state()))
    assert all(torch.equal(without, observed) for without, observed in zip(*results, strict=True))


def test_batch_size_does_not_matter_and_samples_are_bounded(tmp_path: Path) -> None:
    reports = []
    for batch_size in (7, 120):
        monitor = DimensionMonitor(samples=50, per_class=True)
        trainer(tmp_path, monitor).validate(Model(), loader(batch_size=batch_size), verbose=False)
        reports.append(monitor.reports[0])
    assert reports[0].layers["input data"] == reports[1].layers["input data"]
    assert reports[0].layers["hidden"].two_nn == pytest.approx(reports[1].layers["hidden"].two_nn, rel=1e-4)
    assert reports[0].layers["hidden"].samples == 50
    assert set(reports[0].layers["hidden"].classes) == {"0", "1", "2"}


def test_stages_and_epochs_are_those_asked_for(tmp_path: Path) -> None:
    monitor = DimensionMonitor(stages=("train", "val"), every_n_epochs=2)
    run = trainer(tmp_path, monitor, max_epochs=4)
    model = Model()
    run.fit(model, loader(), loader())
    assert [(report.stage, report.epoch) for report in monitor.reports] == [
        ("train", 1), ("val", 1), ("train", 3), ("val", 3)
    ]  # fmt: skip
    assert monitor.reports[0].layers["hidden"].samples == 120  # one epoch, not two
    run.test(model, loader(), verbose=False)
    assert monitor.reports[-1].stage == "test"
    assert hooks(model) == 0


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
def test_a_validation_that_never_comes_is_said(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="DimensionMonitor watches validation, and there is none"):
        trainer(tmp_path, DimensionMonitor(), max_epochs=1).fit(Model(), loader())


def test_hooks_are_gone_after_an_exception(tmp_path: Path) -> None:
    model, monitor = Model(failing=True), DimensionMonitor()
    with pytest.raises(RuntimeError, match="out of luck"):
        trainer(tmp_path, monitor).fit(model, loader(), loader())
    assert hooks(model) == 0
    assert len(monitor.reports) == 1


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_a_resumed_run_continues_the_history(tmp_path: Path) -> None:
    first = DimensionMonitor()
    run = trainer(tmp_path, first)
    run.fit(Model(), loader(), loader())
    run.save_checkpoint(tmp_path / "run.ckpt")
    second = DimensionMonitor(exclude=["head"], samples=50)  # progress is kept, arguments are those of the new run
    run = trainer(tmp_path, second, max_epochs=3)
    run.fit(Model(), loader(), loader(), ckpt_path=tmp_path / "run.ckpt", weights_only=True)
    assert [report.epoch for report in second.reports] == [0, 1, 2]
    assert second.reports[0] == first.reports[0]
    assert second.reports[2].layers["hidden"].samples == 50


def test_layers_without_room_are_named_once(tmp_path: Path) -> None:
    monitor = DimensionMonitor(samples=100, max_bytes=100 * 4 * (8 + 3))
    with pytest.warns(UserWarning, match=r"No dimension for \['hidden'\]") as warned:
        trainer(tmp_path, monitor).fit(Model(), loader(), loader())
    assert list(monitor.reports[-1].layers) == ["input data", "head"]
    assert sum("No dimension" in str(warning.message) for warning in warned) == 1


def test_a_dead_layer_is_missing_and_training_goes_on(tmp_path: Path) -> None:
    model = Model()
    nn.init.constant_(model.hidden.bias, -1e6)
    monitor = DimensionMonitor(layers=["hidden", "head"])
    run = trainer(tmp_path, monitor, max_epochs=1)
    run.fit(model, loader(), loader())
    assert math.isnan(monitor.reports[0].layers["head"].two_nn)
    assert "119 duplicates" in str(monitor.reports[0])
    assert "dimension/val/layers/head" not in run.callback_metrics


def test_two_monitors_have_names_of_their_own(tmp_path: Path) -> None:
    first, second = DimensionMonitor(), DimensionMonitor(pooling="mean")
    run = trainer(tmp_path, first, second, max_epochs=1)
    run.fit(Model(), loader(), loader())
    assert second.name == "dimension-2"
    assert {"dimension/val/last_hidden", "dimension-2/val/last_hidden"} <= set(run.callback_metrics)


class Recorder(CSVLogger):
    """Takes pictures as a TensorBoard writer does."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.pictures: list[str] = []
        self.texts: list[str] = []
        self.add_histogram = None

    @property
    def experiment(self) -> Any:
        return self

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        pass

    def log_hyperparams(self, params: Any = None) -> None:
        pass

    def log_graph(self, *args: Any) -> None:
        pass

    def save(self) -> None:
        pass

    def finalize(self, status: str) -> None:
        pass

    def add_image(self, key: str, *args: Any, **options: Any) -> None:
        self.pictures.append(key)

    def add_text(self, key: str, *args: Any) -> None:
        self.texts.append(key)


@pytest.mark.usefixtures("small_pictures")
def test_pictures_and_a_table_are_written_when_training_ends(tmp_path: Path) -> None:
    logger = Recorder(tmp_path)
    trainer(tmp_path, DimensionMonitor(stages=("train", "val")), logger=logger).fit(Model(), loader(), loader())
    assert sorted(logger.pictures) == ["dimension/history", "dimension/train/profile", "dimension/val/profile"]
    assert logger.texts == ["dimension/table"]


class Writer(DimensionMonitor):
    """Leaves what every rank knows in a file."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        if not trainer.sanity_checking:
            torch.save([r.to_state() for r in self.reports], f"{trainer.default_root_dir}/{trainer.global_rank}.pt")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("samples", [1000, 60])
def test_ranks_share_the_work_and_agree(tmp_path: Path, samples: int) -> None:
    monitor = Writer(samples=samples, per_class=True)
    run = trainer(tmp_path, monitor, devices=2, strategy="ddp_fork", max_epochs=1)
    run.fit(Model(), loader(), loader())
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    assert repr(ranks[0]) == repr(ranks[1])
    layers = ranks[0][0]["layers"]
    assert layers["input data"]["samples"] == min(samples, 120)
    if samples > 120:
        assert layers["input data"]["two_nn"] == pytest.approx(float(two_nn_dimension(data()[:][0])), rel=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stages": ("fit",)}, "`stages`"),
        ({"stages": ()}, "`stages`"),
        ({"samples": 4}, "`samples` of at least 5, got 4"),
        ({"every_n_epochs": 0}, "`every_n_epochs` of at least 1, got 0"),
        ({"name": ""}, "`name`"),
        ({"delta": 2.0}, "`delta`"),
        ({"estimator": "ml"}, "`estimator`"),
        ({"pooling": "sum"}, "`pooling`"),
    ],
)
def test_arguments_are_checked_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DimensionMonitor(**options)


def test_unknown_layers_are_named_when_fitting_starts(tmp_path: Path) -> None:
    model = Model()
    with pytest.raises(ValueError, match="did you mean 'hidden'"):
        trainer(tmp_path, DimensionMonitor(layers=["hiden"])).fit(model, loader(), loader())
    assert hooks(model) == 0
