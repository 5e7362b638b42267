"""Layers of kinds that nobody here wrote: known by type, by name, by likeness, or told of."""

import numpy as np
import pytest
import torch
from torch import nn

from lightning_saturation import SaturationMonitor, capture, measure_saturation, register_layer, select_layers
from lightning_saturation.capture import kinds
from tests.tiny import Net, fit, quiet

pytestmark = quiet


@pytest.fixture(autouse=True)
def _own_table(monkeypatch):
    monkeypatch.setattr(kinds, "KINDS", dict(kinds.KINDS))


def foreign(package, name, base=nn.Module, **members):
    """Return a type that says it comes from ``package``, which need not be installed."""
    return type(name, (base,), {"__module__": f"{package}.somewhere", **members})


def transposed_linear(features, inputs):
    """Return a layer as the ``Conv1D`` of transformers is: a weight (inputs, features) and no base of torch's."""

    def init(self):
        nn.Module.__init__(self)
        self.nf, self.weight = features, nn.Parameter(torch.randn(inputs, features))

    return foreign("transformers", "Conv1D", __init__=init, forward=lambda self, x: x @ self.weight)()


def graph_linear(inputs, features):
    def init(self):
        nn.Module.__init__(self)
        self.out_channels, self.weight = features, nn.Parameter(torch.randn(features, inputs))

    return foreign("torch_geometric", "Linear", __init__=init, forward=lambda self, x: x @ self.weight.T)()


Sending = foreign("torch_geometric", "MessagePassing")


class Attending(Sending):
    def __init__(self):
        super().__init__()
        self.lin = graph_linear(3, 4)

    def forward(self, x, edges):
        return edges @ self.lin(x), "weights of the edges"


class Given(Sending):
    def __init__(self):
        super().__init__()
        self.nn = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 6))

    def forward(self, x, edges):
        return self.nn(edges @ x)


class Graph(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = Attending(), Given(), graph_linear(6, 2)

    def forward(self, x):
        edges = torch.eye(len(x)).roll(1, 0) + torch.eye(len(x))
        return self.last(self.second(self.first(x, edges)[0], edges))


class TinyExperts(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Parameter(torch.randn(3, 4, 8))
        self.down = nn.Parameter(torch.randn(3, 8, 4))

    def forward(self, x, chosen):
        return torch.stack([torch.relu(row @ self.up[i]) @ self.down[i] for row, i in zip(x, chosen, strict=True)])


class TinyRouter(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4))

    def forward(self, x):
        logits = x @ self.weight.T
        return logits, logits.argmax(1)


class Mixture(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate, self.experts = TinyRouter(), TinyExperts()

    def forward(self, x):
        return self.experts(x, self.gate(x)[1])


class Cells(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.cell, self.head = kind(3, 5), nn.Linear(5, 2)

    def forward(self, x):
        state = None
        for step in x.unbind(1):
            state = self.cell(step, state)
        return self.head(state[0] if isinstance(state, tuple) else state)


class Unheard(nn.Module):
    """A layer of no known kind, as people write them."""

    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(3, 7))

    def forward(self, x):
        return (x @ self.kernel).movedim(-1, 1)


def samples(model, batch, **options):
    report = measure_saturation(model, [batch], progress=False, output_layers=(), **options)
    return {name: (layer.samples, layer.features) for name, layer in report.layers.items()}


def test_kinds_without_a_base_of_torchs_are_known_by_name():
    model = nn.Sequential(transposed_linear(6, 3), nn.ReLU(), nn.Linear(6, 2))
    assert samples(model, torch.randn(20, 9, 3)) == {"0": (20, 6), "2": (20, 2)}
    other = foreign("elsewhere", "Conv1D", base=nn.Identity)()
    assert list(select_layers(nn.Sequential(other, nn.Linear(2, 2)))) == ["1"]


def test_a_graph_convolution_is_one_layer_unless_its_network_was_given():
    assert samples(Graph(), torch.randn(12, 3)) == {
        "first": (12, 4),
        "second.nn.0": (12, 5),
        "second.nn.2": (12, 6),
        "last": (12, 2),
    }


def test_experts_and_routers_are_known_by_likeness():
    assert samples(Mixture(), torch.randn(10, 4)) == {"gate": (10, 3), "experts": (10, 4)}


@pytest.mark.parametrize("kind", [nn.RNNCell, nn.LSTMCell, nn.GRUCell])
def test_every_step_of_a_cell_counts(kind):
    torch.manual_seed(0)
    model, x = Cells(kind), torch.randn(20, 4, 3)
    report = measure_saturation(model, [x], progress=False)
    states, state = [], None
    for step in x.unbind(1):
        state = model.cell(step, state)
        states.append((state[0] if isinstance(state, tuple) else state).detach().double().numpy())
    expected = np.linalg.eigvalsh(np.cov(np.concatenate(states).T))[::-1]
    assert report.layers["cell"].samples == 80
    np.testing.assert_allclose(report.layers["cell"].eigenvalues, expected, rtol=1e-6)


def test_bilinear_layers_are_known():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.pair = nn.Bilinear(3, 3, 4)

        def forward(self, x):
            return self.pair(x, x)

    assert samples(Pair(), torch.randn(10, 3)) == {"pair": (10, 4)}


def test_lookups_are_taken_by_name_only():
    model = nn.Sequential(nn.EmbeddingBag(9, 4), nn.Linear(4, 3))
    assert list(select_layers(model)) == ["1"]
    assert list(select_layers(model, ["*"])) == ["0", "1"]


def test_a_registered_type_is_a_layer_and_its_axis_is_the_one_that_was_told():
    model, x = nn.Sequential(Unheard()), torch.randn(20, 5, 3)
    with pytest.raises(ValueError, match=r"types \['Sequential', 'Unheard'\].*with `register_layer`"):
        measure_saturation(model, [x], progress=False)
    register_layer(Unheard, width=lambda layer: layer.kernel.shape[1], features_dim=1)
    seen = {}
    with capture(model, seen.__setitem__), torch.no_grad():
        output = model(x)
    torch.testing.assert_close(seen["0"], output.mean(2))
    assert samples(model, x) == {"0": (20, 7)}
    assert list(select_layers(nn.Sequential(type("Sub", (Unheard,), {})()))) == ["0"]


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((3,), {}, TypeError, "Expected `kind` to be a type of modules, got 3"),
        ((int,), {}, TypeError, "Expected `kind` to be a type of modules, got <class 'int'>"),
        ((nn.ReLU,), {"width": 3}, TypeError, "Expected `width` to be the name of an attribute, .* got 3"),
        ((nn.ReLU,), {"features_dim": "last"}, TypeError, "Expected `features_dim` to be a dimension, got 'last'"),
        ((nn.ReLU,), {"features_dim": 0}, ValueError, "Expected `features_dim` other than 0"),
    ],
)
def test_what_is_no_layer_is_refused(arguments, options, error, message):
    before = dict(kinds.KINDS)
    with pytest.raises(error, match=message):
        register_layer(*arguments, **options)
    assert before == kinds.KINDS


class Partly(Net):
    """A tenth of the weights known: 12 of 12 + 84."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(Wide(), nn.Linear(4, 3))


class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.ones(21, 4))
        self.bias = nn.Parameter(torch.ones(21))

    def forward(self, x):
        return x @ self.kernel.T @ self.kernel / 21


def test_coverage_is_the_share_of_weights_that_is_seen_and_what_is_not_is_named():
    message = (
        r"Only 12% of the network's weights are in layers.* Of no known kind are Wide \(88%\): tell .*`register_layer`"
    )
    with pytest.warns(UserWarning, match=message):
        report = measure_saturation(Partly().body, [torch.randn(9, 4)], progress=False)
    assert report.coverage == 12 / 96
    assert "Only 12% of the network's weights are in these layers" in str(report)
    monitor = SaturationMonitor(stages="train")
    with pytest.warns(UserWarning, match=message) as told:
        fit(Partly(), monitor, max_epochs=2)
    assert len([w for w in told if "known kind" in str(w.message)]) == 1
    assert [each.coverage for each in monitor.reports] == [12 / 96] * 2


def test_a_network_that_is_seen_as_a_whole_says_so():
    lookup, head = nn.Embedding(50, 4), nn.Linear(4, 50)
    head.weight = lookup.weight  # tied: once
    model = nn.Sequential(lookup, nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), nn.LayerNorm(4), head)
    tokens = torch.randint(50, (30, 2))
    report = measure_saturation(model, [tokens], progress=False)
    assert report.coverage == 1.0
    assert "weights are in these layers" not in str(report)
    assert measure_saturation(model, [tokens], progress=False, exclude=["3"]).coverage == 20 / 20
    assert measure_saturation(model, [tokens], progress=False, layers=["3"]).coverage == 200 / 220
