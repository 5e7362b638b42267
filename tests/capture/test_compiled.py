"""Compiled models: counted once in every form of compiling, whenever the hooks came."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from lightning_saturation import capture
from lightning_saturation.capture.capture import Capture
from lightning_saturation.capture.select import CaptureOptions

pytestmark = [  # of torch's own, while it compiles
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning"),
]


@pytest.fixture(autouse=True)
def _fresh(unchecked_pooling):
    torch.compiler.reset()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
    torch.compiler.reset()


class Middle(nn.Module):  # torch compiles no module of its own by itself
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 6)

    def forward(self, x):
        return self.fc(x)


class Net(nn.Module):
    """Three layers, the middle one used twice; the outer two checkpointed where asked for."""

    def __init__(self, use_reentrant=None):
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(4, 6), Middle(), nn.Linear(6, 2)
        self.use_reentrant = use_reentrant

    def inner(self, x):
        return torch.relu(self.middle(torch.relu(self.middle(torch.relu(self.first(x))))))

    def forward(self, x):
        if self.use_reentrant is None:
            return self.last(self.inner(x))
        return self.last(checkpoint(self.inner, x, use_reentrant=self.use_reentrant))


ORDER = ["first", "middle.fc", "middle.fc", "last"]


class Rows:
    def __init__(self):
        self.calls = []

    def __call__(self, name, rows):
        self.calls.append((name, rows.clone()))

    @property
    def names(self):
        return [name for name, _ in self.calls]


def eager_rows(model, x):
    rows = Rows()
    with capture(model, rows):
        model(x)
    return rows.calls


def assert_same_rows(ours, expected, **tolerance):
    assert [name for name, _ in ours] == [name for name, _ in expected]
    for (_, one), (_, other) in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other, **tolerance)


def compiled_by(form, model, backend="aot_eager", **options):
    """Return what to watch and what to call."""
    if form == "module":
        whole = torch.compile(model, backend=backend, **options)
        return whole, whole
    if form == "inner of module":
        return model, torch.compile(model, backend=backend, **options)
    if form == ".compile()":
        model.compile(backend=backend, **options)
    if form == "submodule":
        model.middle = torch.compile(model.middle, backend=backend, **options)
    if form == "submodule.compile()":
        model.middle.compile(backend=backend, **options)
    if form == "function":
        return model, torch.compile(lambda x: model(x), backend=backend, **options)
    return model, model


FORMS = ["module", "inner of module", ".compile()", "submodule", "submodule.compile()", "function"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("first", "fullgraph"), [("hooks", True), ("run", False)])
def test_every_form_counts_once_and_in_order_whatever_came_first(form, first, fullgraph):
    model, x, rows = Net(), torch.randn(5, 4), Rows()
    expected = eager_rows(copy.deepcopy(model), x)
    watched, call = compiled_by(form, model, fullgraph=fullgraph)
    if first == "run":
        call(x).sum().backward()
    with capture(watched, rows):
        call(x).sum().backward()
        call(x).sum().backward()
    assert_same_rows(rows.calls, expected * 2)
    call(x).sum().backward()
    assert len(rows.calls) == 8  # nothing after the context


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("form", ["module", ".compile()", "submodule.compile()"])
def test_recomputation_does_not_count(use_reentrant, form):
    model, x, rows = Net(use_reentrant), torch.randn(5, 4, requires_grad=True), Rows()
    expected = eager_rows(copy.deepcopy(model), x.detach().requires_grad_())
    watched, call = compiled_by(form, model)
    with capture(watched, rows):
        call(x).sum().backward()
    assert_same_rows(rows.calls, expected)


class Shallow(nn.Module):
    """Two layers, as each operation between layers costs inductor a second."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.last(checkpoint(lambda x: self.first(x).relu(), x, use_reentrant=False))


def test_inductor_agrees_also_with_checkpoints_and_dynamic_shapes():
    model, rows = Shallow(), Rows()
    batches = [torch.randn(n, 4) for n in (5, 3, 8)]
    expected = [call for x in batches for call in eager_rows(copy.deepcopy(model), x)]
    model.compile(backend="inductor", fullgraph=True, dynamic=True)
    flags_tell = torch._inductor.config.patch({"cpp.vec_isa_ok": True})  # trying each instruction set takes seconds
    with capture(model, rows), flags_tell:
        for x in batches:
            model(x).sum().backward()
    assert_same_rows(rows.calls, expected)


@pytest.mark.parametrize("dynamic", [None, True])
def test_batches_of_other_sizes_do_not_recompile_each_time(dynamic):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    model, rows = Net(), Rows()
    model.compile(backend=backend, dynamic=dynamic)
    with capture(model, rows), torch.no_grad():
        for n in (5, 7, 9, 11):
            model(torch.randn(n, 4))
    assert [len(r) for name, r in rows.calls if name == "first"] == [5, 7, 9, 11]
    assert len(graphs) <= (1 if dynamic else 2)


def test_a_step_more_neither_recompiles_nor_breaks_the_graph():
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    model, x = Net(), torch.randn(5, 4)
    model.compile(backend=backend)
    hooks = Capture(model, None)
    with hooks:
        for record in (Rows(), None, Rows(), Rows()):
            hooks.record = record
            model(x)
    assert len(graphs) == 1


def test_gradients_and_outputs_are_those_without_hooks():
    def train(watched):
        torch.compiler.reset()
        torch.manual_seed(0)
        model, x = Net(), torch.randn(5, 4)
        model.compile(backend="aot_eager")
        with capture(model, Rows() if watched else None):
            output = model(x)
            output.square().sum().backward()
        return [output, *(p.grad for p in model.parameters())]

    assert all(torch.equal(a, b) for a, b in zip(train(True), train(False), strict=True))


def test_autocast():
    model, x, rows = Net(), torch.randn(5, 4), Rows()
    model.compile(backend="aot_eager")
    with capture(model, rows), torch.autocast("cpu", dtype=torch.bfloat16):
        model(x).sum().backward()
    assert rows.names == ORDER
    assert {r.dtype for _, r in rows.calls} == {torch.bfloat16}


def test_training_and_inference_mode_in_turn():
    model, x, rows = Net(), torch.randn(5, 4), Rows()
    expected = eager_rows(copy.deepcopy(model), x)
    model.compile(backend="aot_eager")
    with capture(model, rows):
        for mode in (torch.inference_mode, torch.enable_grad, torch.no_grad, torch.inference_mode):
            with mode():
                model(x)
    assert_same_rows(rows.calls, expected * 4)


def test_images_and_other_poolings():
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(inplace=True), nn.Conv2d(3, 2, 3))
    x = torch.randn(2, 1, 8, 8)
    compiled_model = torch.compile(model, backend="aot_eager", fullgraph=True)
    for pooling in ("mean", "median", "positions"):
        rows, expected = Rows(), Rows()
        with capture(compiled_model, rows, pooling=pooling):
            compiled_model(x)
        with capture(model, expected, pooling=pooling):
            model(x)
        assert_same_rows(rows.calls, expected.calls)


def test_attention_and_recurrent_layers():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.attention = nn.GRU(4, 4, batch_first=True), nn.MultiheadAttention(4, 2, batch_first=True)

        def forward(self, x):
            x = self.rnn(x)[0]
            return self.attention(x, x, x)[0]

    model, x, rows = Mixed(), torch.randn(3, 5, 4), Rows()
    expected = eager_rows(copy.deepcopy(model), x)
    model.compile(backend="eager")
    with capture(model, rows):
        model(x)
    assert_same_rows(rows.calls, expected)


def test_an_output_that_is_no_tensor_ends_no_training():
    class Words(nn.Module):
        def forward(self, x):
            return {"words": x}

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.fc = Words(), nn.Linear(2, 2)

        def forward(self, x):
            return self.fc(self.words(x)["words"])

    model, rows = Both(), Rows()
    model.compile(backend="eager", fullgraph=True)
    with Capture(model, rows, CaptureOptions(["words", "fc"]), trouble=lambda *_: None):
        model(torch.ones(1, 2))
    assert rows.names == ["fc"]


def test_copies_and_pickles_of_a_watched_compiled_model_are_not_watched():
    model, x, rows = Net(), torch.randn(5, 4), Rows()
    model.compile(backend="eager")
    with capture(model, rows):
        model(x)
        assert rows.names == ORDER
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            other(x)
            torch.compile(other, backend="eager")(x)
        assert rows.names == ORDER


def test_a_compiled_function_that_outlives_the_hooks_delivers_to_nobody():
    model, x = Net(), torch.randn(5, 4)
    call, one, other = torch.compile(lambda x: model(x), backend="eager"), Rows(), Rows()
    hooks = Capture(model, one)
    with hooks:
        call(x)
    with Capture(model, other, CaptureOptions(["last"])):
        call(x)
    call(x)
    assert (one.names, other.names) == (ORDER, ["last"])


def test_a_model_that_nobody_compiled_leaves_compiled_code_of_others_alone_before_anything_ran(monkeypatch):
    resets = []
    monkeypatch.setattr(torch.compiler, "reset", lambda: resets.append(1))
    with capture(Net(), Rows()):
        pass
    assert not resets


def test_function_transforms_within_compiled_code_are_left_alone():
    model, x, rows = nn.Linear(4, 2), torch.randn(5, 4), Rows()

    @torch.compile(backend="eager")
    def mapped(x):
        return torch.func.vmap(model)(x)

    with capture(model, rows):
        torch.testing.assert_close(mapped(x), model(x))
    assert rows.names == ["Linear"]
