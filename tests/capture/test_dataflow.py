"""Order and outputs as data flows, seen in one step as it runs; and a training that stays what it was."""

import copy
import inspect
import sys

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from lightning_saturation import SaturationMonitor, measure_saturation
from lightning_saturation.capture.look import Look
from tests.tiny import Net, batches, fit, is_untouched, quiet

pytestmark = [  # of torch's own, while it compiles
    *quiet,
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning"),
]


@pytest.fixture(autouse=True)
def _nothing_compiled(monkeypatch):
    # The tests' shape checks would be compiled as well, and are not what users run.
    module = sys.modules["lightning_saturation.capture.rows"]
    monkeypatch.setattr(module, "pool", inspect.unwrap(module.pool))
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def measure(model, *shape, **options):
    torch.manual_seed(0)
    return measure_saturation(model, torch.randn(2, *shape), progress=False, **options)


class Conditioned(nn.Module):
    """A layer that conditions every block, and is used again by each."""

    def __init__(self):
        super().__init__()
        self.t, self.b = nn.Linear(4, 4), nn.ModuleList(nn.Linear(4, 4) for _ in range(4))
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        h = x
        for b in self.b:
            h = torch.relu(self.t(x) + b(h))
        return self.head(h)


class Reused(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.out = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.out(self.a(self.b(self.a(x))))


class Late(nn.Module):
    """Two branches, the later of which is called first."""

    def __init__(self):
        super().__init__()
        self.z, self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(8, 4)

    def forward(self, x):
        return self.b(torch.cat([self.z(x), torch.relu(self.a(x))], 1))


class ActorCritic(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh())
        self.actor, self.critic = nn.Linear(8, 3), nn.Linear(8, 1)

    def forward(self, x):
        h = self.body(x)
        return torch.softmax(self.actor(h), -1), self.critic(h)


class InPlace(nn.Module):
    """What autograd's graph would lose: values changed in place, frozen layers, a buffer filled slice by slice."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.b.requires_grad_(False)

    def forward(self, x):
        h = self.a(x)
        h /= 2
        filled = torch.zeros_like(h)
        filled[:, :2] = self.b(h)[:, 2:]
        return self.c(filled.view(-1).reshape(h.shape) * 3)


class Recomputed(nn.Module):
    def __init__(self, use_reentrant):
        super().__init__()
        self.a, self.b, self.c, self.use_reentrant = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2), use_reentrant

    def forward(self, x):
        h = torch.relu(self.a(x))
        return self.c(checkpoint(lambda z: torch.tanh(self.b(z)), h, use_reentrant=self.use_reentrant))


class Through(nn.Module):
    """A function of a user's own in between."""

    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, gradient):
            return gradient * 2

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.b(self.Double.apply(self.a(x)))


NETWORKS = {
    "conditioned": (Conditioned, ["t", "b.0", "b.1", "b.2", "b.3", "head"], ("head",)),
    "reused": (Reused, ["a", "b", "out"], ("out",)),
    "branches": (Late, ["z", "a", "b"], ("b",)),
    "actor and critic": (ActorCritic, ["body.0", "body.2", "actor", "critic"], ("actor", "critic")),
    "in place": (InPlace, ["a", "b", "c"], ("c",)),
    "checkpointing": (lambda: Recomputed(False), ["a", "b", "c"], ("c",)),
    "reentrant checkpointing": (lambda: Recomputed(True), ["a", "b", "c"], ("c",)),
    "a function of one's own": (Through, ["a", "b"], ("b",)),
}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning")
def test_order_and_outputs_are_those_of_the_data(network):
    make, order, outputs = NETWORKS[network]
    report = measure(make(), 16, 4)
    assert (list(report.layers), report.output_layers) == (order, outputs)


class Trained(Net):
    def __init__(self, make):
        super().__init__(lr=0.1)
        self.body = make()

    def loss(self, batch):
        out = self(batch[0])
        return sum(part.square().mean() for part in (out if isinstance(out, tuple) else (out,)))


@pytest.mark.parametrize("network", NETWORKS)
def test_and_in_a_training(network):
    make, order, outputs = NETWORKS[network]
    monitor = SaturationMonitor(stages="train")
    model = Trained(make)
    fit(model, monitor)
    assert list(monitor.reports[0].layers) == [f"body.{name}" for name in order]
    assert monitor.reports[0].output_layers == tuple(f"body.{name}" for name in outputs)
    assert is_untouched(model)


class Adversaries(Net):
    """Two optimizers in one step; what comes out of the generator goes into the discriminator."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.body = None
        self.disc = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
        self.gen = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4))

    def training_step(self, batch, batch_idx):
        x = batch[0]
        for number, optimizer in enumerate(self.optimizers()):
            fake = self.gen(torch.randn(len(x), 3))
            loss = self.disc(fake).mean() if number else (self.disc(x) - self.disc(fake.detach())).mean()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()

    def configure_optimizers(self):
        return [torch.optim.SGD(part.parameters(), lr=0.1) for part in (self.disc, self.gen)]


def test_a_generator_is_no_output_layer_and_lies_before_the_discriminator():
    monitor = SaturationMonitor(stages="train")
    fit(Adversaries(), monitor)
    assert list(monitor.reports[0].layers) == ["gen.0", "gen.2", "disc.0", "disc.2"]
    assert monitor.reports[0].output_layers == ("disc.2",)


class Dropping(nn.Module):
    """Random numbers, statistics of batches and attention: what a look could disturb."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)
        self.attention = nn.MultiheadAttention(8, 2)

    def forward(self, x):
        h = nn.functional.dropout(self.norm(self.first(x)), 0.3, self.training)[:, None]
        return self.last(self.attention(h, h, h)[0][:, 0])


@pytest.mark.parametrize("compiled", [False, True])
def test_a_training_that_was_looked_at_is_bitwise_the_one_that_was_not(compiled):
    def train(*callbacks):
        torch.manual_seed(1)
        model = Trained(Dropping)
        if compiled:
            model.body.compile(backend="eager")
        torch.manual_seed(2)
        fit(model, *callbacks, val=batches(seed=1), max_epochs=2)
        return [*model.state_dict().values(), torch.rand(1)]

    assert all(torch.equal(a, b) for a, b in zip(train(), train(SaturationMonitor()), strict=True))


def test_a_compiled_network_is_looked_at_where_nothing_is_trained():
    class Compiled(Trained):
        def __init__(self):
            super().__init__(ActorCritic)
            self.stances = []
            self.body.compile(backend=self.backend, fullgraph=True)

        def backend(self, graph, example):
            self.stances.append("compiled")
            return graph.forward

    model, monitor = Compiled(), SaturationMonitor(stages="train")
    fit(model, monitor, val=batches(seed=1))
    assert model.stances  # it did run compiled, after the sanity check
    assert monitor.reports[0].output_layers == ("body.actor", "body.critic")
    assert monitor.reports[0].followed
    monitor = SaturationMonitor(stages="train")
    fit(Compiled(), monitor)  # nobody could look: the last layer to run
    assert monitor.reports[0].output_layers == ("body.critic",)
    assert not monitor.reports[0].followed


def test_the_vocabulary_of_a_language_model_is_left_out_unless_named():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4097))
    report = measure(model, 6, 4)
    assert list(report.layers) == ["0"]
    assert list(report.left_out) == ["2"]
    assert "an output layer of 4097 features, more than 4096: name it in `layers`" in str(report)
    assert report.output_layers == ()
    assert report.average == report.saturation["0"]
    named = measure(model, 6, 4, layers=["0", "2"])
    assert (list(named.layers), named.output_layers, named.left_out) == (["0", "2"], ("2",), {})
    wide = nn.Sequential(nn.Linear(4, 4097), nn.ReLU(), nn.Linear(4097, 2))
    report = measure(wide, 6, 4)  # as wide, but not the output: all rows count, those of the first batch too
    assert {name: layer.samples for name, layer in report.layers.items()} == {"0": 12, "2": 12}


def test_it_is_left_out_of_a_training_too():
    monitor = SaturationMonitor()
    fit(Trained(lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4097))), monitor, val=batches(seed=1))
    assert {report.stage: (list(report.layers), list(report.left_out)) for report in monitor.reports} == {
        "train": (["body.0"], ["body.2"]),
        "val": (["body.0"], ["body.2"]),
    }


def test_layers_that_did_not_run_are_left_out_with_the_reason():
    model = nn.ModuleDict({"ran": nn.Linear(4, 3), "idle": nn.Linear(4, 3)})
    model.forward = lambda x: model["ran"](x)
    with pytest.warns(UserWarning, match=r"No saturation for \['idle'\]"):
        report = measure(model, 6, 4)
    assert report.left_out == {"idle": "did not run, or where hooks do not fire"}


def test_layers_in_a_circle_come_as_they_are_called_and_the_last_is_the_output():
    class Circle(nn.Module):
        def __init__(self):
            super().__init__()
            self.b, self.a = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.a(self.b(self.a(self.b(x))))

    report = measure(Circle(), 9, 4)
    assert (list(report.layers), report.output_layers) == (["b", "a"], ("a",))


def test_layers_without_data_are_no_outputs():
    class Biased(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias, self.out = nn.Linear(2, 4), nn.Linear(4, 4)
            self.register_buffer("places", torch.randn(1, 2))

        def forward(self, x):
            out = self.out(x)
            return out, self.bias(self.places)

    model = Biased()
    look = Look(model, {"bias": model.bias, "out": model.out})
    look.begin()
    model(torch.randn(3, 4))
    look.end()
    assert (look.flow.constant, look.flow.outputs) == (("bias",), ("out",))
    assert is_untouched(model)


def test_a_fused_attention_over_what_is_no_data_makes_no_data_of_it():
    class Queries(nn.Module):
        def __init__(self):
            super().__init__()
            self.queries, self.out, self.values = nn.Parameter(torch.randn(2, 5, 4)), nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            queries = nn.functional.scaled_dot_product_attention(self.queries, self.queries, self.queries)
            values = self.values(x)
            return nn.functional.scaled_dot_product_attention(self.out(queries), values, values)

    model = Queries()
    look = Look(model, {"out": model.out, "values": model.values})
    look.begin()
    model(torch.randn(2, 5, 4))
    look.end()
    assert look.flow.constant == ("out",)


def test_a_copy_of_a_model_that_is_looked_at_is_not():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    look = Look(model, {"0": model[0], "1": model[1]})
    look.begin()
    try:
        copy.deepcopy(model)(torch.randn(2, 4))
        assert look.flow.ran == ()
    finally:
        look.end()


def test_transforms_and_errors_do_no_harm():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    look = Look(model, {"0": model[0], "1": model[1]})
    look.begin()
    torch.func.vmap(model)(torch.randn(3, 4))
    with pytest.raises(RuntimeError):
        model(torch.randn(3, 5))
    model(torch.randn(3, 4))
    look.end()
    assert look.flow.ran == ("0", "1")
    assert is_untouched(model)


def test_looks_that_end_in_the_order_in_which_they_began_leave_nothing_behind():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    looks = [Look(model, {"0": model[0], "2": model[2]}) for _ in range(2)]
    before = torch._dynamo.eval_frame._stance
    for look in looks:
        look.begin()
    model(torch.randn(5, 3))
    looks[0].end()
    model[2](torch.randn(5, 4))
    looks[1].end()
    assert [look.flow.outputs for look in looks] == [("2",), ("2",)]
    assert torch._dynamo.eval_frame._stance == before
    assert torch._C._len_torch_dispatch_stack() == 0
