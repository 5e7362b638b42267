"""measure_spectrum: what it finds, what it leaves as it was, and what it says about layers without a spectrum."""

import io
import time

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from lightning_saturation import measure_spectrum
from lightning_saturation.operators.report import SpectrumReport


class Network(nn.Module):
    """Layers out of order, one used on two shapes, one never used, one with dropout that draws in evaluation mode."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(12, 3)
        self.unused = nn.Linear(2, 2)
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.twice = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        x = self.twice(torch.relu(self.first(x)) + torch.rand(1))
        x = self.twice(nn.functional.max_pool2d(x, 2))
        return self.head(x.flatten(2).mean(2).repeat(1, 3))


def measure(model=None, x=None, **options):
    torch.manual_seed(0)
    model = Network() if model is None else model
    return measure_spectrum(model, torch.zeros(2, 1, 6, 6) if x is None else x, progress=False, **options)


def test_layers_come_as_they_run_with_reasons_for_those_without():
    torch.manual_seed(0)
    model = Network().train()
    model.first.eval()
    state = torch.get_rng_state()
    report = measure_spectrum(model, torch.zeros(2, 1, 6, 6), progress=False)
    assert torch.equal(torch.get_rng_state(), state)
    assert list(report.layers) == ["first", "head"]
    assert report.input_shapes == {"first": (1, 6, 6), "head": (12,)}
    assert report.missing == {
        "twice": "it ran on inputs of several shapes: (4, 3, 3), (4, 6, 6)",
        "unused": "it did not run, or where hooks do not fire",
    }
    assert model.training
    assert not model.first.training
    assert not any(module._forward_pre_hooks for module in model.modules())
    weight = model.head.weight.detach().double().numpy()
    assert report.layers["head"].largest == pytest.approx(np.linalg.norm(weight, 2) ** 2)
    assert "missing: it ran on inputs of several shapes" in str(report)


def test_records_and_state():
    report = measure()
    records = report.to_records()
    assert [record["layer"] for record in records] == ["first", "head", "twice", "unused"]
    assert len({tuple(record) for record in records}) == 1
    assert records[2]["spectral_norm"] is None
    file = io.BytesIO()
    torch.save(report.to_state(), file)
    file.seek(0)
    again = SpectrumReport.from_state(torch.load(file, weights_only=True))
    assert str(again) == str(report)
    assert torch.equal(again.layers["first"].counts, report.layers["first"].counts)


def test_a_layer_that_is_no_operator_is_missing_where_it_is_named():
    model = nn.Sequential(nn.Linear(3, 4), nn.LSTM(4, 5))
    assert list(measure(model, torch.zeros(2, 3)).layers) == ["0"]
    report = measure(model, torch.zeros(2, 3), layers=["0", "1"])
    assert report.missing == {"1": "LSTM is no linear operator on feature maps"}
    with pytest.raises(ValueError, match=r"linear or convolutional layers.*\['LSTM'\]"):
        measure(model, torch.zeros(2, 3), layers=["1"])


def test_weights_that_are_not_finite_and_time_that_runs_out_are_reasons():
    model = Network()
    with torch.no_grad():
        model.head.weight[0, 0] = torch.inf
    report = measure(model, layers=["head", "first"])
    assert "NaN or infinity" in report.missing["head"]
    assert list(report.layers) == ["first"]
    late = measure(seconds=1e-9)
    assert not late.layers
    assert all("ut of time" in late.missing[name] for name in ("first", "head"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": ["nowhere"]}, "nowhere"),
        ({"bins": 0}, "`bins`"),
        ({"degree": 1}, "`degree`"),
        ({"seconds": -1.0}, "`seconds` > 0"),
        ({"method": "guess"}, "'guess'"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        measure(**options)


def test_an_input_that_does_not_fit_is_the_model_s_error_and_leaves_no_hook():
    model = Network()
    with pytest.raises(RuntimeError, match="expected input"):
        measure(model, torch.zeros(2, 5, 6, 6))
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_budget_is_kept_and_coarsens():
    model = nn.Conv2d(16, 32, 3, padding=1)
    start = time.monotonic()
    report = measure_spectrum(model, torch.zeros(1, 16, 40, 40), seconds=1.5, progress=False)
    assert time.monotonic() - start < 4.5
    assert report.missing or "out of time" in report.layers["Conv2d"].note or report.layers["Conv2d"].degree == 400


def test_a_parametrised_layer_is_left_alone():
    model = nn.utils.parametrizations.spectral_norm(nn.Linear(5, 4))
    model.train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    report = measure_spectrum(model, torch.zeros(1, 5), progress=False)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert len(report.layers) == 1


def test_a_loader_in_place_of_a_batch_is_an_error():
    with pytest.raises(TypeError, match="Expected `example_input` to be one batch, got a DataLoader"):
        measure_spectrum(nn.Linear(5, 4), DataLoader(torch.zeros(8, 5)), progress=False)
