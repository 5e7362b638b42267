"""Saturation without a Trainer: every form of batches, and a model that is left as it was."""

import copy
from collections import namedtuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from lightning_saturation import measure_saturation


@pytest.fixture
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(3, 6), nn.Dropout(0.5), nn.BatchNorm1d(6), nn.ReLU(inplace=True), nn.Linear(6, 2)
        )


X = torch.from_numpy(np.random.default_rng(0).standard_normal((40, 3))).float()
Batch = namedtuple("Batch", ["inputs", "labels"])


class Stream(IterableDataset):
    def __iter__(self):
        return iter(X)


def measure(model, batches, **options):
    return measure_saturation(model, batches, progress=False, **options)


def numpys(model):
    with torch.no_grad():
        hidden = copy.deepcopy(model).eval()[0](X).double().numpy()
    return np.linalg.eigvalsh(np.cov(hidden.T))[::-1]


FORMS = {
    "tensor": X.view(4, 10, 3),
    "list": list(X.split(7)),
    "generator": (x for x in X.split(7)),
    "tuples": [(x, torch.zeros(len(x))) for x in X.split(9)],
    "lists": [[x, "labels"] for x in X.split(9)],
    "named tuples": [Batch(x, None) for x in X.split(9)],
    "dicts": [{"input": x} for x in X.split(9)],
    "loader": DataLoader(TensorDataset(X, torch.arange(40)), batch_size=7),
    "stream": DataLoader(Stream(), batch_size=7),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_batches_gives_numpys_numbers(model, form):
    report = measure(model, FORMS[form])
    assert list(report.layers) == ["0", "4"]
    assert (report.stage, report.output_layers) == ("test", ("4",))
    assert report.layers["0"].samples == 40
    np.testing.assert_allclose(report.layers["0"].eigenvalues, numpys(model).clip(0), rtol=1e-6, atol=1e-9)
    assert report.average == report.saturation["0"]


def test_the_model_is_left_as_it_was(model):
    model.train()
    model[2].eval()  # a mode of its own
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    rng = torch.get_rng_state()
    measure(model, [X])
    assert modes == [m.training for m in model.modules()]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(rng, torch.get_rng_state())
    assert not any(m._forward_hooks for m in model.modules())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_also_after_an_error(model, error):
    def batches():
        yield X
        raise error("no more data")

    with pytest.raises(error, match="no more data"):
        measure(model, batches())
    assert model.training
    assert not any(m._forward_hooks for m in model.modules())


def test_another_device_is_for_as_long_as_it_lasts(model, monkeypatch):
    moves, move = [], model.to
    monkeypatch.setattr(model, "to", lambda device: (moves.append(str(device)), move("cpu"))[1])
    measure(model, [X], device="cpu:0")  # the one device that is everywhere, by another name
    assert moves == ["cpu:0", "cpu"]
    with pytest.raises(TypeError):
        measure(model, [None], device="cpu:0")
    assert moves == ["cpu:0", "cpu"] * 2
    assert model.training


def test_max_batches_takes_no_more_than_that(model):
    batches = iter(X.split(5))
    assert measure(model, batches, max_batches=3).layers["0"].samples == 15
    assert len(list(batches)) == 5


def test_options_reach_the_layers(model):
    report = measure(model, [X], layers=["0", "3"], output_layers=(), delta=0.5)
    assert list(report.layers) == ["0", "3"]
    assert report.output_layers == ()
    assert report.delta == 0.5
    assert list(measure(model, [X], exclude=["4"]).layers) == ["0"]


def test_progress_is_shown_where_asked_for(model, capsys):
    measure_saturation(model, [X])
    assert "saturation" in capsys.readouterr().err
    measure(model, [X])
    assert not capsys.readouterr().err


def test_within_inference_mode(model):
    with torch.inference_mode():
        report = measure(model, X.split(7))
    assert report.layers["0"].samples == 40


@pytest.mark.parametrize(
    ("batches", "options", "message"),
    [
        ([X], {"layers": ["nope"]}, "`layers` to name modules of the model, but nothing matches 'nope'"),
        ([X], {"delta": 1.5}, r"Expected `delta` in \(0, 1\], got 1.5"),
        ([X], {"pooling": "avg"}, "Expected `pooling` to be one of"),
        (
            [X],
            {"output_layers": ["9"]},
            r"Expected `output_layers` to name tracked layers, among \['0', '4'\], got '9'",
        ),
        ([X], {"max_batches": 0}, "Expected `max_batches` of at least 1 or None, got 0"),
        ([X], {"max_batches": -1}, "Expected `max_batches` of at least 1 or None, got -1"),
        ([], {}, "Expected `batches` with at least one batch that reaches a tracked layer, got none"),
        ([X[:0]], {}, "Expected `batches` with at least one batch that reaches a tracked layer, got none"),
    ],
)
def test_bad_input_is_an_error_that_leaves_the_model_alone(model, batches, options, message):
    with pytest.raises(ValueError, match=message):
        measure(model, batches, **options)
    assert model.training
    assert not any(m._forward_hooks for m in model.modules())
