"""Budgets and sketches through a Trainer."""

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from lightning_saturation import SaturationMonitor
from lightning_saturation.covariance.accumulation import LEAST_ROWS

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*IterableDataset.*"),
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec.*:FutureWarning"),  # Lightning's, with torch 2.13
]


class Images(L.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 12, 3), nn.Flatten(), nn.Linear(12 * 144, 4)
        )

    def training_step(self, batch, _):
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch, _):
        self.net(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


class Endless(IterableDataset):
    def __init__(self, data):
        self.data = data

    def __iter__(self):
        return iter(self.data)


def loader(sized=True, n=96):
    data = TensorDataset(torch.randn(n, 1, 16, 16), torch.randint(0, 4, (n,)))
    return DataLoader(data if sized else Endless(data), batch_size=8)


def fit(monitor, *, sized=True, **options):
    trainer = L.Trainer(
        max_epochs=2,
        accelerator="cpu",
        callbacks=[monitor],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(Images(), loader(sized), loader(sized))
    return trainer


@pytest.mark.parametrize("sized", [True, False])
def test_positions_are_thinned_by_default_and_all_on_request(sized):
    some, everything = SaturationMonitor(pooling="positions"), SaturationMonitor(pooling="positions", max_samples=None)
    fit(some, sized=sized)
    fit(everything, sized=sized)
    for few, all_ in zip(some.reports, everything.reports, strict=True):
        assert few.stage == all_.stage
        assert all_.layers["net.0"].samples == 96 * 14 * 14
        for name in ("net.0", "net.2"):
            assert LEAST_ROWS / 2 <= few.layers[name].samples <= LEAST_ROWS
            distance = few.layers[name].continuous_saturation - all_.layers[name].continuous_saturation
            assert abs(distance) < 0.03
        assert few.layers["net.4"].samples == 96


def test_a_known_length_fills_the_budget_in_the_first_window():
    monitor = SaturationMonitor(pooling="positions", max_samples=1000, every_n_train_steps=6, stages="train")
    fit(monitor, accumulate_grad_batches=2)
    rows = 8 * 12 * 14 * 14  # six steps of two batches
    for report in monitor.reports:
        # One of every stratum; the last one is cut, and holds its row or does not.
        assert report.layers["net.0"].samples in (rows // -(-rows // 1000), -(-rows // -(-rows // 1000)))


def test_a_sketching_monitor_reports_bounds_that_hold():
    sketch, exact = SaturationMonitor(covariance="sketch"), SaturationMonitor(covariance="exact")
    fit(sketch)
    fit(exact)
    for guess, truth in zip(sketch.reports, exact.reports, strict=True):
        for name, layer in truth.layers.items():
            assert guess.layers[name].saturation_lower <= layer.saturation <= guess.layers[name].saturation_upper
    record = sketch.reports[-1].to_records()[0]
    assert record["saturation_lower"] <= record["saturation"] <= record["saturation_upper"]
    restored = type(sketch.reports[-1]).from_state(sketch.reports[-1].to_state())
    assert restored.layers == sketch.reports[-1].layers


def test_an_uncertain_saturation_shows_its_bounds_in_table_and_chart():
    from lightning_saturation.covariance.sketch import add_to_sketch, empty_sketch
    from lightning_saturation.saturation.report.layer import LayerStatistics
    from lightning_saturation.saturation.report.report import SaturationReport

    sketch, _ = add_to_sketch(
        empty_sketch(40, size=4), torch.randn(200, 40, generator=torch.Generator().manual_seed(0))
    )
    layer = LayerStatistics.from_sketch(sketch, 200)
    assert layer.is_bracketed
    text = str(SaturationReport({"wide": layer}))
    assert f"between {layer.saturation_lower:.3f} and {layer.saturation_upper:.3f}" in text
    (bounds,) = SaturationReport({"wide": layer}).plot().axes[0].collections
    (segment,) = bounds.get_segments()
    assert segment[:, 1].tolist() == [layer.saturation_lower, layer.saturation_upper]
    certain = LayerStatistics.from_eigenvalues(torch.ones(4), features=4, samples=10)
    assert "between" not in str(SaturationReport({"narrow": certain}))
