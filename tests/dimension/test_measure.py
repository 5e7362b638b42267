"""The dimension of layers, measured without a Trainer."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_saturation.dimension.measure import measure_dimension
from lightning_saturation.dimension.report import DimensionReport
from lightning_saturation.functional import two_nn_dimension


def plane(samples: int = 400, dimension: int = 3, features: int = 12) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(samples, dimension, generator=generator) @ torch.randn(dimension, features, generator=generator)


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(12, 30), nn.Linear(30, 2), nn.Linear(2, 5))


def measure(model: nn.Module, batches: object, **options: object) -> DimensionReport:
    return measure_dimension(model, batches, progress=False, **options)  # type: ignore[arg-type]


def test_linear_layers_keep_the_dimension_and_a_bottleneck_ends_it() -> None:
    x = plane()
    report = measure(network(), x.split(64))
    assert list(report.layers) == ["input data", "0", "1", "2"]
    assert list(report.depth.values()) == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert [layer.features for layer in report.layers.values()] == [12, 30, 2, 5]
    assert [layer.pca for layer in report.layers.values()] == pytest.approx([3, 3, 2, 2], abs=1)
    assert report.layers["input data"].two_nn == pytest.approx(float(two_nn_dimension(x)), rel=1e-9)
    for name, dimension in {"input data": 3, "0": 3, "1": 2, "2": 2}.items():
        layer = report.layers[name]
        assert abs(layer.two_nn - dimension) < 4 * layer.standard_error
        assert layer.low < layer.two_nn < layer.high
    assert report.last_hidden == "1"
    assert report.last_hidden_dimension == report.layers["1"].two_nn


def test_the_model_comes_back_as_it_was() -> None:
    model = network().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    measure(model, plane().split(100), baseline="random", per_class=True, scales=True)
    assert torch.equal(state, torch.get_rng_state())
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_small_memory_takes_more_runs_and_gives_the_same() -> None:
    loader = DataLoader(TensorDataset(plane()), batch_size=50)
    once = measure(network(), loader, samples=100)
    often = measure(network(), loader, samples=100, max_bytes=100 * 12 * 4)
    assert once == often
    with pytest.raises(ValueError, match="more than once"):
        measure(network(), iter(plane().split(50)), samples=100, max_bytes=100)


def test_samples_are_bounded_and_uniform_over_sorted_data() -> None:
    x = torch.cat([plane() + 1000 * i for i in range(3)])
    report = measure(network(), x.split(64), samples=300)
    assert report.layers["0"].samples == 300
    # Of three far clouds one after the other all are in the sample: one direction between them holds the variance.
    assert report.layers["0"].pca == 1


def test_random_weights_are_another_network() -> None:
    model = network()
    with torch.no_grad():
        model[1].weight[1] = model[1].weight[0]  # as if trained into one dimension
        model[1].bias.zero_()
    report = measure(model, plane().split(100), baseline="random")
    assert report.baseline is not None
    assert report.layers["1"].two_nn == pytest.approx(1, abs=0.2)
    assert report.baseline["1"].two_nn == pytest.approx(2, abs=0.4)
    assert report.baseline["input data"] == report.layers["input data"]
    assert "random: TwoNN" in str(report)


def test_parameters_that_cannot_be_drawn_again_are_named() -> None:
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shift, self.layer = nn.Parameter(torch.zeros(12)), nn.Linear(12, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x + self.shift)

    with pytest.warns(UserWarning, match=r"\['shift'\]"):
        measure(Shifted(), plane().split(100), baseline="random")


def test_classes_one_at_a_time() -> None:
    x = torch.cat([plane(dimension=1), plane(dimension=4), torch.zeros(3, 12)])
    labels = torch.tensor([0] * 400 + [1] * 400 + [2] * 3)
    loader = DataLoader(TensorDataset(x, labels), batch_size=64)
    layer = measure(nn.Linear(12, 30), loader, per_class=True).layers["Linear"]
    assert layer.classes["0"] == pytest.approx(1, abs=0.2)
    assert layer.classes["1"] == pytest.approx(4, abs=0.6)
    assert "no dimension for classes 2" in layer.note
    assert layer.class_mean == pytest.approx((layer.classes["0"] + layer.classes["1"]) / 2)
    unlabelled = measure(nn.Linear(12, 30), x.split(64), per_class=True).layers["Linear"]
    assert unlabelled.classes == {}
    assert "no labels" in unlabelled.note


def test_what_cannot_be_told_is_said() -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dead, self.nan = nn.Linear(12, 4), nn.Linear(12, 4)
            nn.init.zeros_(self.dead.weight)
            nn.init.constant_(self.nan.weight, math.nan)

        def forward(self, x: Tensor) -> Tensor:
            return self.dead(x) + self.nan(x)

    report = measure(Broken(), plane().split(100))
    dead, bad = report.layers["dead"], report.layers["nan"]
    assert math.isnan(dead.two_nn)
    assert (dead.duplicates, dead.pca) == (399, 0)
    assert math.isnan(bad.two_nn)
    assert math.isnan(bad.pca)
    assert (bad.skipped, bad.samples) == (400, 0)
    assert "399 duplicates" in str(report)
    assert "missing" in str(report)
    assert report.to_records()[1]["two_nn"] is None


def test_convolutions_are_whole_maps_unless_pooled() -> None:
    images = torch.randn(60, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(32, 2))
    assert [layer.features for layer in measure(model, [images]).layers.values()] == [36, 32, 2]
    assert measure(model, [images], pooling="mean").layers["0"].features == 2
    high = measure(model, [images]).layers["0"]
    assert high.lower_bound
    assert "a lower bound" in str(measure(model, [images]))


def test_inputs_that_are_no_numbers_are_no_layer() -> None:
    model = nn.Sequential(nn.Embedding(50, 6), nn.Linear(6, 3))
    tokens = torch.randint(50, (200,), generator=torch.Generator().manual_seed(0))
    assert list(measure(model, [tokens], layers=["0", "1"]).layers) == ["0", "1"]


def test_a_report_survives_its_state_and_loads_with_weights_only(tmp_path) -> None:
    report = measure(network(), plane().split(100), baseline="random", scales=True)
    torch.save(report.to_state(), tmp_path / "state.pt")
    assert DimensionReport.from_state(torch.load(tmp_path / "state.pt", weights_only=True)) == report


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 4}, "`samples` of at least 5, got 4"),
        ({"baseline": "zero"}, "`baseline` to be 'random' or None, got 'zero'"),
        ({"delta": 0.0}, "`delta`"),
        ({"discard": 1.0}, "`discard`"),
        ({"layers": ["nothing"]}, "'nothing'"),
        ({"output_layers": ["nothing"]}, "`output_layers`"),
        ({"pooling": "sum"}, "`pooling`"),
        ({"max_batches": 0}, "`max_batches` of at least 1"),
    ],
)
def test_bad_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure(network(), plane().split(100), **options)
