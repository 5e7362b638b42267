"""Hooks that hand over rows: every layer kind, counted once, nothing left behind."""

import copy
import gc
import io
import pickle
import weakref

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence
from torch.utils.checkpoint import checkpoint

from lightning_saturation import capture
from lightning_saturation.capture.capture import Capture
from lightning_saturation.capture.select import CaptureOptions


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


class Rows:
    """What was recorded, layer by layer, copied as it came."""

    def __init__(self):
        self.calls = []

    def __call__(self, name, rows):
        assert not rows.requires_grad
        self.calls.append((name, rows.clone()))

    @property
    def names(self):
        return [name for name, _ in self.calls]

    def __getitem__(self, name):
        return torch.cat([rows for other, rows in self.calls if other == name])


def recorded(model, *inputs, **options):
    rows = Rows()
    with capture(model, rows, **options):
        output = model(*inputs)
    return rows, output


def untouched(model):
    """Whether no module of ``model`` has a hook or an attribute of ours."""
    return all(
        not module._forward_hooks
        and not module._forward_hooks_with_kwargs
        and not getattr(module, "_forward_hooks_always_called", None)
        and not any("saturation" in f"{type(value).__module__}" for value in vars(module).values())
        for module in model.modules()
    )


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("transposed", [False, True])
def test_convolutions_batched_and_not(rank, transposed):
    kind = getattr(nn, f"Conv{'Transpose' * transposed}{rank}d")
    model, x = kind(2, 3, 2), torch.randn(5, 2, *[4] * rank)
    for rows, output in (recorded(model, x), recorded(nn.Sequential(model), x)):
        torch.testing.assert_close(rows.calls[0][1], output.detach().flatten(2).mean(2))
    rows, output = recorded(model, x[0])
    torch.testing.assert_close(rows.calls[0][1], output.detach().flatten(1).mean(1)[None])
    rows, output = recorded(model, x, pooling="positions")
    torch.testing.assert_close(rows.calls[0][1], output.detach().flatten(2).mT.flatten(0, 1))


@pytest.mark.parametrize("shape", [(4,), (3, 4), (3, 5, 4), (2, 3, 5, 4)])
def test_linear_layers_on_any_number_of_dimensions(shape):
    rows, output = recorded(nn.Linear(4, 6), torch.randn(shape))
    expected = output.detach() if len(shape) > 1 else output.detach()[None]
    torch.testing.assert_close(rows["Linear"], expected.flatten(1, -2).mean(1) if len(shape) > 2 else expected)


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
@pytest.mark.parametrize("batch_first", [False, True])
def test_recurrent_layers_put_out_every_step(kind, batch_first):
    model = kind(3, 4, batch_first=batch_first, bidirectional=True)
    x = torch.randn(5, 2, 3)  # 5 samples of 2 steps, or 2 samples of 5
    rows, (output, _) = recorded(model, x, pooling="last")
    expected = output[:, -1] if batch_first else output[-1]
    torch.testing.assert_close(rows[kind.__name__], expected.detach())
    rows, (output, _) = recorded(model, x[0])
    torch.testing.assert_close(rows[kind.__name__], output.detach().mean(0)[None])


@pytest.mark.parametrize("enforce_sorted", [False, True])
@pytest.mark.parametrize("pooling", ["mean", "max", "median", "last", "positions"])
def test_packed_sequences_are_pooled_without_padding(pooling, enforce_sorted):
    lengths = [4, 2, 1] if enforce_sorted else [2, 4, 1]
    sequences = [torch.randn(length, 3) for length in lengths]
    model = nn.GRU(3, 5)
    rows, _ = recorded(model, pack_sequence(sequences, enforce_sorted=enforce_sorted), pooling=pooling)
    alone = [model(sequence)[0].detach() for sequence in sequences]
    if pooling == "positions":
        assert len(rows["GRU"]) == 7
        torch.testing.assert_close(rows["GRU"].sum(0), torch.cat(alone).sum(0))
        return
    by_hand = {
        "mean": lambda s: s.mean(0),
        "max": lambda s: s.amax(0),
        "median": lambda s: s.median(0).values,
        "last": lambda s: s[-1],
    }
    torch.testing.assert_close(rows["GRU"], torch.stack([by_hand[pooling](s) for s in alone]))


@pytest.mark.parametrize("batch_first", [False, True])
def test_attention_gives_its_output_not_its_weights(batch_first):
    model = nn.MultiheadAttention(4, 2, batch_first=batch_first)
    x = torch.randn(5, 3, 4)
    rows, (output, _) = recorded(model, x, x, x)
    torch.testing.assert_close(rows["MultiheadAttention"], output.detach().mean(1 if batch_first else 0))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_a_transformer_encoder_in_evaluation_mode_with_padding():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.TransformerEncoder(layer, 2).eval()
    x, padding = torch.randn(3, 5, 8), torch.zeros(3, 5, dtype=torch.bool)
    padding[1, 3:] = True
    with torch.no_grad():
        rows, _ = recorded(model, x)
        assert rows.names == [f"layers.{i}.{name}" for i in (0, 1) for name in ("self_attn", "linear1", "linear2")]
        rows = Rows()
        with capture(model, rows), torch.random.fork_rng():
            model(x, src_key_padding_mask=padding)
    assert {name: len(rows[name]) for name in rows.names} == dict.fromkeys(rows.names, 3)
    assert all(r.isfinite().all() for _, r in rows.calls)


def test_nested_tensors_are_pooled_sequence_by_sequence():
    model = nn.Linear(3, 2)
    sequences = [torch.randn(length, 3) for length in (4, 1)]
    nested = torch.nested.nested_tensor(sequences, layout=torch.jagged)
    rows, _ = recorded(model, nested)
    torch.testing.assert_close(rows["Linear"], torch.stack([model(s).detach().mean(0) for s in sequences]))
    with capture(model, Rows(), pooling=None), pytest.raises(TypeError, match="one length with `pooling=None`"):
        model(nested)


def test_embeddings_on_request():
    model = nn.Sequential(nn.Embedding(7, 3), nn.Linear(3, 2))
    tokens = torch.randint(7, (4, 5))
    rows, _ = recorded(model, tokens, layers=["0"])
    torch.testing.assert_close(rows["0"], model[0](tokens).detach().mean(1))


def test_lazy_layers_are_sized_by_their_first_run():
    model = nn.Sequential(nn.LazyConv2d(3, 1), nn.Flatten(), nn.LazyLinear(5))
    rows, output = recorded(model, torch.randn(2, 4, 2, 2))
    assert rows["0"].shape == (2, 3)
    torch.testing.assert_close(rows["2"], output.detach())


def test_any_module_by_name_and_its_first_output():
    class Pair(nn.Module):
        def forward(self, x):
            return (x, [x.sum()])

    rows, _ = recorded(nn.ModuleDict({"pair": Pair()})["pair"], torch.ones(3, 2), layers=["Pair"])
    assert torch.equal(rows["Pair"], torch.ones(3, 2))
    images = torch.randn(2, 3, 4, 4)
    rows, _ = recorded(nn.Sequential(nn.BatchNorm2d(3).eval()), images, layers=["0"])
    assert rows["0"].shape == (2, 3)  # four dimensions: channels first


def test_with_no_pooling_the_output_comes_as_it_is():
    rows, output = recorded(nn.Conv2d(1, 2, 1), torch.randn(3, 1, 4, 4), pooling=None)
    assert torch.equal(rows.calls[0][1], output)


def test_outputs_are_those_before_an_activation_in_place():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True))
    x = torch.randn(5, 3)
    rows, _ = recorded(model, x)
    torch.testing.assert_close(rows["0"], model[0](x).detach())
    assert (rows["0"] < 0).any()


def test_layers_come_in_the_order_in_which_they_run_and_as_often():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.first = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x):
            return self.last(self.first(self.first(x)))

    rows, _ = recorded(Twice(), torch.randn(3, 2))
    assert rows.names == ["first", "first", "last"]
    assert len(rows["first"]) == 6


class Checkpointed(nn.Module):
    def __init__(self, use_reentrant):
        super().__init__()
        self.a, self.b, self.use_reentrant = nn.Linear(4, 8), nn.Linear(8, 2), use_reentrant

    def forward(self, x):
        return self.b(checkpoint(lambda z: torch.relu(self.a(z)), x, use_reentrant=self.use_reentrant))


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_recomputation_does_not_count(use_reentrant):
    model, rows = Checkpointed(use_reentrant), Rows()
    ran = []
    model.a.register_forward_hook(lambda *_: ran.append(1))
    with capture(model, rows):
        model(torch.randn(32, 4, requires_grad=True)).sum().backward()
    assert len(ran) == 2  # it did run twice
    assert rows.names == ["a", "b"]
    assert len(rows["a"]) == 32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_hands_over_what_the_layer_put_out(dtype):
    model, x = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), torch.randn(6, 4)
    with torch.autocast("cpu", dtype=dtype):
        rows, output = recorded(model, x)
    assert rows["1"].dtype == dtype
    assert torch.equal(rows["1"], output)


def test_inference_mode_and_no_grad():
    for mode in (torch.inference_mode, torch.no_grad):
        with mode():
            rows, output = recorded(nn.Linear(4, 3), torch.randn(6, 4))
            assert torch.equal(rows["Linear"], output)


def test_shards_of_a_layer_are_not_its_output():
    model = nn.Linear(4, 6)
    model.weight, model.bias = nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.zeros(3))  # half, as one rank of two
    rows = Rows()
    hooks = Capture(model, rows)
    with hooks:
        model(torch.randn(5, 4))
    assert not rows.calls
    assert hooks.sharded == {"Linear"}


def test_function_transforms_are_left_alone():
    model, rows = nn.Linear(3, 1), Rows()
    x = torch.randn(5, 3)
    parameters = dict(model.named_parameters())
    with capture(model, rows):
        torch.func.vmap(model)(x)
        torch.func.grad(lambda p: torch.func.functional_call(model, p, x).sum())(parameters)
        torch.func.jacrev(model)(x)
        assert not rows.calls
        torch.func.functional_call(model, parameters, x)
    assert rows.names == ["Linear"]


@pytest.mark.usefixtures("unchecked_pooling")
def test_tracing_and_exporting_keep_nothing_of_the_hooks():
    model, rows, x = nn.Sequential(nn.Linear(3, 2)), Rows(), torch.randn(4, 3)
    with capture(model, rows):
        traced = torch.jit.trace(model, x, check_trace=False)
        program = torch.export.export(model, (x,))
    assert not rows.calls
    assert "lightning_saturation" not in str(traced.graph)
    assert "lightning_saturation" not in str(program.graph)


def test_nothing_changes_in_what_a_model_computes_and_learns():
    def train(watched):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(8, 2))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with capture(model, Rows() if watched else None):
            for _ in range(3):
                optimizer.zero_grad()
                model(torch.randn(16, 4)).square().sum().backward()
                optimizer.step()
        return [*model.parameters(), torch.rand(1)]

    assert all(torch.equal(a, b) for a, b in zip(train(True), train(False), strict=True))


def test_hooks_go_with_the_context_also_after_an_error_and_ctrl_c():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), capture(model, Rows()):  # noqa: PT012
            assert not untouched(model)
            raise error
        assert untouched(model)


def test_hooks_on_some_layers_go_when_another_layer_takes_none():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))

    def refuse(*_, **__):
        raise RuntimeError("no hooks here")

    model[1].register_forward_hook = refuse
    hooks = capture(model, Rows())
    with pytest.raises(RuntimeError, match="no hooks here"), hooks:
        raise AssertionError("the context must not begin")
    assert untouched(model)


def test_attaching_twice_hooks_once_and_detaching_twice_does_no_harm():
    model, rows = nn.Linear(2, 2), Rows()
    hooks = Capture(model, rows)
    hooks.attach()
    hooks.attach()
    model(torch.ones(1, 2))
    assert len(rows.calls) == 1
    hooks.detach()
    hooks.detach()
    assert untouched(model)


def test_hooks_of_others_stay():
    model, ran = nn.Linear(2, 2), []
    model.register_forward_hook(lambda *_: ran.append(1))
    recorded(model, torch.ones(1, 2))
    model(torch.ones(1, 2))
    assert len(ran) == 2


HEARD = []


def hear(name, rows):
    """What a copy of the model would share with the original, as a function is never copied."""
    HEARD.append(name)


def test_copies_and_pickles_of_a_watched_model_are_not_watched():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    HEARD.clear()
    with capture(model, hear):
        copied = copy.deepcopy(model)
        pickled = pickle.loads(pickle.dumps(model))
        buffer = io.BytesIO()
        torch.save(model, buffer)
        buffer.seek(0)
        loaded = torch.load(buffer, weights_only=False)
        for other in (copied, pickled, loaded):
            assert torch.equal(other(torch.ones(1, 2)), copied(torch.ones(1, 2)))
        assert not HEARD
        model(torch.ones(1, 2))
        assert HEARD == ["0", "1"]
    assert model.state_dict().keys() == copied.state_dict().keys()


def test_two_captures_side_by_side():
    model, one, other = nn.Linear(2, 2), Rows(), Rows()
    with capture(model, one):
        with capture(model, other):
            model(torch.ones(1, 2))
        model(torch.ones(1, 2))
    assert (len(one.calls), len(other.calls)) == (2, 1)


def test_nothing_is_handed_over_while_nobody_listens():
    model, rows = nn.Linear(2, 2), Rows()
    hooks = Capture(model, None)
    with hooks:
        model(torch.ones(1, 2))
        hooks.record = rows
        model(torch.ones(1, 2))
        hooks.record = None
        model(torch.ones(1, 2))
    assert len(rows.calls) == 1


def test_a_model_is_not_kept_alive():
    model = nn.Linear(2, 2)
    with capture(model, Rows()):
        model(torch.ones(1, 2))
    reference = weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None


def test_an_output_that_is_no_tensor_is_an_error_or_told_to_whoever_asks():
    class Words(nn.Module):
        def forward(self, x):
            return {"words": x}

    model = nn.Sequential(Words())
    with capture(model, Rows(), layers=["0"]), pytest.raises(TypeError, match="a tensor from Words, got dict"):
        model(torch.ones(1, 2))
    told = []
    with Capture(model, Rows(), CaptureOptions(["0"]), trouble=lambda name, error: told.append((name, str(error)))):
        model(torch.ones(1, 2))
    assert told == [("0", "Expected a tensor from Words, got dict.")]


def test_bad_arguments_are_errors_before_any_hook():
    model = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="Expected `pooling` to be one of"):
        capture(model, Rows(), pooling="average")
    with pytest.raises(ValueError, match="nothing matches 'nope'"):
        capture(model, Rows(), layers=["nope"])
    assert untouched(model)


@pytest.mark.parametrize("pooling", ["mean", "max", "last", "positions", "flatten"])
def test_an_output_like_the_last_one_gives_the_same_rows_as_any_other(pooling):
    """The short way and the long one, in turns: sizes of batches, types, one sample alone, in-place layers behind."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True))
    batches = [torch.randn(size, 3, 2, 2) for size in (5, 5, 2, 5, 5)]
    inputs = [(x, False) for x in (*batches, batches[0][0])] + [(x, True) for x in batches[:2]] + [(batches[0], False)]

    def forward(x, half):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            model(x)

    rows = Rows()
    with capture(model, rows, pooling=pooling):
        for each in inputs:
            forward(*each)
    for each, (_, found) in zip(inputs, rows.calls, strict=True):
        alone = Rows()
        with capture(model, alone, pooling=pooling):
            forward(*each)
        assert torch.equal(found, alone["0"])
        assert found.dtype == alone["0"].dtype
