"""Which layers are tracked by default, by name, by glob; and the errors at the door."""

import copy

import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torchmetrics import Metric, MetricCollection

from lightning_saturation import SaturationMonitor, select_layers
from lightning_saturation.capture.kinds import kind_of
from lightning_saturation.capture.pooling import Layout
from lightning_saturation.capture.select import layout_of


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4)

    def forward(self, x):
        return x + self.fc2(self.act(self.fc1(x)))


class Perceptual(Metric):
    """A metric with a network of its own, as FID has."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 2))

    def update(self): ...

    def compute(self): ...


def network():
    return nn.ModuleDict(
        {
            "embed": nn.Embedding(10, 4),
            "encoder": nn.Sequential(Block(), Block()),
            "norm": nn.LayerNorm(4),
            "attention": nn.MultiheadAttention(4, 2),
            "rnn": nn.GRU(4, 4),
            "head": nn.Linear(4, 2),
        }
    )


KINDS = [
    nn.Linear(2, 3),
    nn.LazyLinear(3),
    *(kind(2, 3, 1) for kind in (nn.Conv1d, nn.Conv2d, nn.Conv3d)),
    *(kind(2, 3, 1) for kind in (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)),
    *(kind(3, 1) for kind in (nn.LazyConv1d, nn.LazyConv2d, nn.LazyConvTranspose3d)),
    nn.RNN(2, 3),
    nn.LSTM(2, 3),
    nn.GRU(2, 3),
    nn.MultiheadAttention(4, 2),
    nn.utils.parametrizations.weight_norm(nn.Linear(2, 3)),
]


@pytest.mark.parametrize("layer", KINDS, ids=lambda layer: type(layer).__name__)
def test_every_supported_kind_is_tracked_by_default(layer):
    assert list(select_layers(nn.Sequential(nn.Identity(), layer))) == ["1"]
    assert list(select_layers(layer)) == [type(layer).__name__]


def test_a_model_in_place_of_names_is_one_line():
    with pytest.raises(TypeError, match=r"Expected `layers` to hold names or globs of modules, got .{,90}$"):
        SaturationMonitor(nn.Sequential(*(nn.Linear(2, 2) for _ in range(9))))


def test_the_default_is_every_supported_layer_in_the_order_of_named_modules():
    model = network()
    names = ["encoder.0.fc1", "encoder.0.fc2", "encoder.1.fc1", "encoder.1.fc2", "attention", "rnn", "head"]
    layers = select_layers(model)
    assert list(layers) == names
    assert all(layers[name] is model.get_submodule(name) for name in names)


@pytest.mark.parametrize(
    ("layers", "exclude", "expected"),
    [
        (["encoder.*"], (), ["encoder.0.fc1", "encoder.0.fc2", "encoder.1.fc1", "encoder.1.fc2"]),
        (["*.fc2", "head"], (), ["encoder.0.fc2", "encoder.1.fc2", "head"]),
        (["head", "embed"], (), ["embed", "head"]),  # an embedding by request; the model's order, not the argument's
        (["embed*"], (), ["embed"]),
        (["encoder.0"], (), ["encoder.0"]),  # any module by its name
        (["norm"], (), ["norm"]),
        (["*.act"], (), ["encoder.0.act", "encoder.1.act"]),  # nothing supported among them: all that match
        (["encoder.[01].fc1"], (), ["encoder.0.fc1", "encoder.1.fc1"]),
        ("head", (), ["head"]),  # one string is a name, not four letters
        (None, ["encoder.*", "rnn"], ["attention", "head"]),
        (None, "*.fc?", ["attention", "rnn", "head"]),
        (["encoder.*"], ["encoder.1.*"], ["encoder.0.fc1", "encoder.0.fc2"]),
        (None, ["encoder", "rnn"], ["attention", "head"]),  # a container goes with all that it holds
    ],
)
def test_names_and_globs(layers, exclude, expected):
    assert list(select_layers(network(), layers, exclude)) == expected


@pytest.mark.parametrize(
    ("layers", "exclude", "message"),
    [
        (["haed"], (), r"`layers` to name modules of the model, but nothing matches 'haed'; did you mean 'head'\?"),
        (["head", "nope.*"], (), r"nothing matches 'nope\.\*'; there are \["),
        (None, ["encodr.0"], r"`exclude` to name modules.*'encodr\.0'; did you mean 'encoder\.0'"),
        (None, ["*"], "Expected a model with linear, convolutional, recurrent or attention layers after `layers` and"),
        ([], (), "got none among modules of the types"),
        ([3], (), r"Expected `layers` to hold names or globs of modules, got \[3\]"),
        (None, [None], r"Expected `exclude` to hold names or globs of modules, got \[None\]"),
        (["attention.out_proj"], (), "nothing matches 'attention.out_proj'"),  # its hooks never fire
    ],
)
def test_bad_names_are_errors_with_the_near_misses(layers, exclude, message):
    with pytest.raises(ValueError, match=message):
        select_layers(network(), layers, exclude)


def test_a_model_without_supported_layers_is_an_error_that_lists_its_types():
    with pytest.raises(ValueError, match=r"got none among modules of the types \['ReLU', 'Sequential'\]"):
        select_layers(nn.Sequential(nn.ReLU()))


def test_networks_within_metrics_are_left_out():
    model = nn.ModuleDict({"fc": nn.Linear(2, 2), "fid": Perceptual(), "all": MetricCollection([Perceptual()])})
    assert list(select_layers(model)) == ["fc"]


def test_a_module_under_two_names_is_one_layer():
    layer = nn.Linear(4, 4)
    assert list(select_layers(nn.ModuleDict({"a": layer, "b": layer}))) == ["a"]


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's compiler, at its first import
def test_wrappers_do_not_show_in_names():
    model = nn.Sequential(checkpoint_wrapper(Block()), torch.compile(Block()), nn.Linear(4, 2))
    names = ["0.fc1", "0.fc2", "1.fc1", "1.fc2", "2"]
    assert list(select_layers(model)) == names
    assert list(select_layers(torch.compile(model))) == names
    assert list(select_layers(model, ["0.*"])) == names[:2]
    assert list(select_layers(model, ["0._checkpoint_wrapped_module.fc1", "1._orig_mod.fc2"])) == ["0.fc1", "1.fc2"]
    chosen = select_layers(model, ["0"])["0"]
    assert type(chosen) is Block  # the inner one, which runs either way


def test_names_that_only_resemble_a_wrappers_stay():
    assert list(select_layers(nn.ModuleDict({"my_orig_mod": Block()}))) == ["my_orig_mod.fc1", "my_orig_mod.fc2"]


def test_choosing_does_not_touch_the_model():
    model = network()
    before = [copy.copy(vars(module)) for module in model.modules()]
    select_layers(model)
    assert before == [vars(module) for module in model.modules()]
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("module", "dimensions", "layout"),
    [
        (nn.Linear(2, 3), 3, Layout()),
        (nn.Embedding(2, 3), 4, Layout()),
        (nn.Conv1d(2, 3, 1), 3, Layout(features=-2, unbatched=2)),
        (nn.ConvTranspose3d(2, 3, 1), 5, Layout(features=-4, unbatched=4)),
        (nn.GRU(2, 3), 3, Layout(batch=1, unbatched=2)),
        (nn.LSTM(2, 3, batch_first=True), 3, Layout(batch=0, unbatched=2)),
        (nn.MultiheadAttention(4, 2), 3, Layout(batch=1, unbatched=2)),
        (nn.BatchNorm2d(3), 4, Layout(features=-3)),
        (nn.LayerNorm(3), 3, Layout()),
    ],
)
def test_layouts(module, dimensions, layout):
    assert layout_of(module, dimensions) == layout


def test_widths_are_what_modules_say():
    for module, width in ((nn.Linear(2, 3), 3), (nn.ConvTranspose2d(2, 5, 1), 5), (nn.GRU(2, 3), None)):
        assert kind_of(module).width_of(module) == width
    assert kind_of(nn.LayerNorm(3)) is None
