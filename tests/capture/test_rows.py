"""What a row is in networks that keep positions first, flatten their tokens, or have layers that see no data."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.utils.data import DataLoader

from lightning_saturation import SaturationReport, SimilarityMonitor, compare_representations, measure_saturation
from lightning_saturation.capture.capture import Capture
from lightning_saturation.capture.represent import represent
from lightning_saturation.capture.samples import batch_size
from lightning_saturation.capture.select import CaptureOptions
from lightning_saturation.saturation.report.history import from_state, to_state
from lightning_saturation.saturation.report.layer import with_rows
from lightning_saturation.saturation.window import saturation_tracker
from tests.profiles import profile
from tests.tiny import trainer


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def outputs(model, batches, names):
    """What the modules called ``names`` put out for each batch, by hooks of PyTorch alone."""
    found = {name: [] for name in names}
    handles = [
        model.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: found[name].append(out))
        for name in names
    ]
    with torch.no_grad():
        for batch in batches:
            model.eval()(batch)
    for handle in handles:
        handle.remove()
    return found


def spectrum(rows):
    return np.linalg.eigvalsh(np.cov(torch.cat(rows).double().numpy().T))[::-1].clip(0)


class Encoder(nn.Module):
    """As in PyTorch's own tutorial: tokens first, an embedding before and a head behind."""

    def __init__(self, *, batch_first=False):
        super().__init__()
        self.inner = nn.Linear(7, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=batch_first)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.body(self.inner(x)))


LINEAR = ("inner", "body.layers.0.linear1", "body.layers.1.linear2", "head")


@pytest.mark.parametrize("size", [9, 5, 30])  # less than, as many as, and more samples than tokens
@pytest.mark.parametrize("hidden", [False, True], ids=["as told", "after a transposition"])
def test_samples_that_come_second_are_still_the_samples(size, hidden):
    model = Encoder()
    x = [torch.randn(5, size, 7) for _ in range(4)]
    if hidden:  # nothing but the step itself tells then
        inner = model.inner.forward
        model.inner.forward = lambda x: inner(x.transpose(0, 1))
        x = [batch.transpose(0, 1).contiguous() for batch in x]
    model.eval()
    report = measure_saturation(model, x, layers=LINEAR, output_layers=(), progress=False)
    for name, each in outputs(model, x, LINEAR).items():
        assert report.layers[name].samples == 4 * size, name
        assert report.layers[name].rows == "samples"
        np.testing.assert_allclose(
            report.layers[name].eigenvalues, spectrum([out.mean(0) for out in each]), rtol=1e-4, atol=1e-9
        )


def test_last_takes_the_last_token_not_the_last_sample():
    model = Encoder().eval()
    x = [torch.randn(5, 9, 7)]
    report = measure_saturation(model, x, layers=LINEAR, pooling="last", output_layers=(), progress=False)
    for name, (out,) in outputs(model, x, LINEAR).items():
        np.testing.assert_allclose(report.layers[name].eigenvalues, spectrum([out[-1]]), rtol=1e-4, atol=1e-9)


class Flattening(nn.Module):
    """Tokens in rows of their own before one layer, as OPT's, and a bias that is made of positions alone, as Swin's."""

    def __init__(self):
        super().__init__()
        self.first, self.flat, self.last = nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(5, 4)
        self.bias = nn.Linear(1, 5)
        self.register_buffer("where", torch.linspace(0, 1, 4).view(4, 1))

    def forward(self, x):
        h = self.first(x) + self.bias(self.where)
        return self.last(self.flat(h.flatten(0, 1)).view_as(h))


def test_reports_say_what_rows_are_and_leave_those_that_are_no_data_out_of_the_average():
    report = measure_saturation(Flattening(), torch.randn(8, 20, 4, 6), progress=False)
    assert {name: layer.rows for name, layer in report.layers.items()} == {
        "first": "samples",
        "bias": "none",
        "flat": "positions",
        "last": "samples",
    }
    assert report.layers["flat"].samples == 4 * report.layers["first"].samples
    assert report.average == np.mean([report.saturation["first"], report.saturation["flat"]])
    text = str(report)
    assert "Rows are positions, not samples, in flat" in text
    assert "no data: one row a batch" in text
    assert SaturationReport.from_state(report.to_state()).layers["bias"].rows == "none"
    (again,) = from_state(to_state([report]))
    assert {name: layer.rows for name, layer in again.layers.items()}["flat"] == "positions"


def test_layers_whose_rows_differ_are_not_compared():
    report = profile([10, 90, 10, 10], names=["a", "b", "c", "d"], output=True)
    assert "bottleneck" in report.diagnose().kinds
    apart = replace(report, layers=with_rows(report.layers, {"b": "positions"}))
    assert "bottleneck" not in apart.diagnose().kinds


def test_layers_that_cannot_be_paired_are_left_out_of_a_comparison():
    model = Flattening()
    with pytest.warns(UserWarning, match=r"\['bias', 'flat'\] do not put out one row for each of the 20 samples"):
        matrix = compare_representations(model, model, torch.randn(8, 20, 4, 6), method="cka", progress=False)
    assert matrix.rows == ("first", "last")


@pytest.mark.parametrize(
    ("batch", "size"),
    [
        (torch.zeros(4, 3), 4),
        ((torch.zeros(12, 64, 3), torch.zeros(64)), 64),  # labels tell
        ({"a": torch.zeros(5, 7), "b": torch.zeros(5, 7)}, 5),
        ([[torch.zeros(3, 8, 8), torch.zeros(3, 9, 9)], [{}]], 2),  # a detector's
        ("no tensor", 0),
    ],
)
def test_the_size_of_a_batch(batch, size):
    assert batch_size(batch) == size


def test_a_second_attempt_only_where_the_first_was_wrong():
    told = torch.randn(5, 9, 7)
    for model, x in ((Encoder(), told), (nn.Sequential(Swap(), Encoder()), told.transpose(0, 1))):
        capture = Capture(model, None)
        with torch.no_grad(), capture:
            runs = [again for again in capture.attempts(x) if model(x) is not None]
        assert runs == ([0] if isinstance(model, Encoder) else [0, 1])


class Swap(nn.Module):
    def forward(self, x):
        return x.transpose(0, 1)


@pytest.mark.parametrize("what", ["something else", "the model"])
@pytest.mark.parametrize("net", [Flattening, lambda: nn.Sequential(Swap(), Encoder())], ids=["flat", "swapped"])
def test_measuring_looks_also_where_something_is_compiled(what, net, unchecked_pooling):
    model = net().eval()
    x = torch.randn(3, 20, 4, 6) if isinstance(model, Flattening) else torch.randn(3, 9, 5, 7)
    plain = measure_saturation(model, x, progress=False)
    compiled = torch.compile(model if what == "the model" else torch.relu, backend="eager")
    compiled(x[0])
    watched = compiled if what == "the model" else model
    again = measure_saturation(watched, x, progress=False)
    assert again.saturation == pytest.approx(plain.saturation)
    for told in ("rows", "samples"):
        assert [getattr(v, told) for v in again.layers.values()] == [getattr(v, told) for v in plain.layers.values()]
    assert again.output_layers == plain.output_layers
    pairs = [name for name, layer in plain.layers.items() if layer.rows == "samples"]
    assert {name: len(rows) for name, rows in represent(watched, x, CaptureOptions(pairs)).items()} == {
        name: plain.layers[name].samples for name in pairs
    }


class Learner(LightningModule):
    """``Flattening`` as it is trained, on batches that hold more than it takes."""

    def __init__(self):
        super().__init__()
        self.network = Flattening()

    def forward(self, x):
        return self.network(x)

    def training_step(self, batch, _):
        return self(batch["x"]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


@pytest.mark.parametrize("forward", [None, lambda module, batch: module.network(batch["x"])], ids=["step", "given"])
@pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning")
@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec")
def test_a_similarity_monitor_leaves_layers_out_that_cannot_be_paired_and_goes_on(forward):
    monitor = SimilarityMonitor(method="cka", samples=20, forward=forward)
    rows = [{"x": torch.randn(4, 6)} for _ in range(40)]
    with pytest.warns(UserWarning, match="do not put out one row for each of the 20 samples"):
        trainer(monitor, max_epochs=2).fit(Learner(), DataLoader(rows, 10))
    assert list(monitor.series) == ["network.first", "network.last"]
    assert [len(values) for values in monitor.series.values()] == [2, 2]


def test_rows_that_nobody_else_has_wait_for_the_end_of_their_batch_in_order():
    model = nn.Sequential(
        nn.Conv2d(1, 2, 1), nn.Flatten(), nn.Linear(8, 3), nn.Unflatten(1, (3, 1, 1)), nn.Conv2d(3, 4, 1)
    )
    x = torch.randn(6, 1, 2, 2)
    tracker = saturation_tracker(model, stages=("train",))
    tracker.attach()
    for _ in range(3):
        tracker.record("train", x)
        model(x)
        model(x)  # a second forward within the step
    waiting = tracker.windows["train"].statistics(delta=0.99)
    assert {name: layer.samples for name, layer in waiting.items()} == {"0": 36, "2": 36, "4": 30}
    tracker.record(None)
    tracker.detach()
    found = tracker.windows["train"].statistics(delta=0.99)
    assert [*found] == ["0", "2", "4"]
    assert {layer.samples for layer in found.values()} == {36}
