"""Where modules of no known kind have their features: as they say, as their neighbours do, or not at all."""

import numpy as np
import pytest
import torch
from torch import nn

from lightning_saturation import capture, measure_dimension, measure_saturation, register_layer
from lightning_saturation.capture import kinds
from lightning_saturation.capture.features import Neighbour, features_dim


@pytest.fixture(autouse=True)
def _own_table(monkeypatch):
    monkeypatch.setattr(kinds, "KINDS", dict(kinds.KINDS))
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("module", "shape", "neighbour", "expected"),
    [
        (nn.LayerNorm(32), (8, 5, 6, 32), None, -1),  # as windows of an image are kept
        (nn.LayerNorm(32), (8, 32, 32, 32), None, -1),
        (nn.BatchNorm2d(5), (8, 5, 5, 5), None, -3),
        (nn.BatchNorm1d(16), (8, 16, 18), None, -2),  # not the time
        (nn.GroupNorm(2, 6), (8, 6, 4, 4), None, -3),
        (nn.InstanceNorm2d(6), (8, 6, 4, 4), None, -3),
        (nn.GELU(), (8, 7, 7, 384), Neighbour((8, 7, 7, 384), -1), -1),
        (nn.GELU(), (8, 16, 7, 7), Neighbour((8, 16, 7, 7), -3), -3),
        (nn.MaxPool2d(2), (8, 16, 3, 3), Neighbour((8, 16, 7, 7), -3), -3),
        (nn.Flatten(), (8, 48), Neighbour((8, 16, 3, 1), -3), -1),
        (nn.ReLU(), (8, 8, 8), Neighbour((8, 8, 8), -1), -1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_the_axis_is_the_one_that_fits(module, shape, neighbour, expected):
    assert features_dim(module, shape, neighbour) == expected


@pytest.mark.parametrize(
    ("module", "shape", "neighbour", "count"),
    [
        (nn.ReLU(), (8, 5, 6), None, "none"),
        (nn.ReLU(), (8, 5, 6), Neighbour((8, 7), -1), "none"),
        (nn.AvgPool1d(2), (8, 6, 6), Neighbour((8, 6, 12), -2), "2"),
        (nn.LayerNorm((5, 6)), (8, 5, 6), None, "none"),
    ],
)
def test_where_it_stays_ambiguous_it_is_asked_for(module, shape, neighbour, count):
    name = type(module).__name__
    with pytest.raises(ValueError, match=rf"but {count} of them fit.*register_layer\({name}, features_dim"):
        features_dim(module, shape, neighbour)


class Channels(nn.Module):
    """An image kept with its channels last, as Swin and ConvNeXt do."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.up, self.act = nn.Conv2d(3, 6, 1), nn.LayerNorm(6), nn.Linear(6, 24), nn.GELU()

    def forward(self, x):
        return self.act(self.up(self.norm(self.conv(x).permute(0, 2, 3, 1))))


def spectrum(rows):
    return np.linalg.eigvalsh(np.cov(rows.double().numpy().T))[::-1].clip(0)


def test_norms_and_activations_that_are_named_have_their_own_features():
    model, x = Channels(), torch.randn(40, 3, 5, 5)
    report = measure_saturation(model, [x], layers=["norm", "act"], output_layers=(), progress=False)
    with torch.no_grad():
        norm = model.norm(model.conv(x).permute(0, 2, 3, 1))
        act = model.act(model.up(norm))
    for name, output in {"norm": norm, "act": act}.items():
        assert report.layers[name].features == output.shape[-1]
        np.testing.assert_allclose(report.layers[name].eigenvalues, spectrum(output.mean((1, 2))), rtol=1e-5, atol=1e-9)


def test_torchs_pools_have_channels_whatever_their_size():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(4))
    x = torch.randn(30, 3, 8, 8)
    report = measure_saturation(model, [x], layers=["1", "2"], output_layers=(), progress=False)
    with torch.no_grad():
        outputs = {"1": model[:2](x), "2": model(x)}
    for name, output in outputs.items():
        np.testing.assert_allclose(report.layers[name].eigenvalues, spectrum(output.mean((2, 3))), rtol=1e-5, atol=1e-9)


def test_a_norm_behind_a_convolution_of_time():
    model = nn.Sequential(nn.Conv1d(3, 16, 3), nn.BatchNorm1d(16))
    report = measure_saturation(model, [torch.randn(30, 3, 20)], layers=["1"], progress=False)
    assert report.layers["1"].features == 16


def test_what_stays_ambiguous_is_left_out_with_the_remedy_and_then_told():
    class Fold(nn.Module):
        def forward(self, x):
            return x.view(len(x), 2, 3, 4)

    model, x = nn.Sequential(nn.Linear(4, 24), Fold(), nn.Flatten(), nn.Linear(24, 2)), torch.randn(9, 4)
    with (
        pytest.raises(ValueError, match=r"register_layer\(Fold, features_dim"),
        capture(model, print, layers=["1"]),
    ):
        model(x)
    with pytest.warns(UserWarning, match=r"Some outputs of layer '1' are left out .*register_layer\(Fold"):
        report = measure_saturation(model, [x], layers=["0", "1"], progress=False)
    assert list(report.layers) == ["0"]
    register_layer(Fold, features_dim=1)
    assert measure_saturation(model, [x], layers=["1"], progress=False).layers["1"].features == 2


@pytest.mark.parametrize("measure", [measure_saturation, measure_dimension])
def test_without_pooling_there_are_no_rows_to_measure(measure):
    with pytest.raises(ValueError, match=r"Expected `pooling` to be one of .* got None"):
        measure(nn.Conv2d(3, 5, 1), [torch.randn(4, 3, 7, 7)], pooling=None, progress=False)
