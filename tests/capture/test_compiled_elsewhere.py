"""Training where something is compiled: looked at where nothing of the step is, said where it was not."""

import copy

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader

from lightning_saturation import DimensionMonitor, SaturationMonitor
from lightning_saturation.capture.compat import MODES_LET_COMPILE
from lightning_saturation.saturation.report.report import SaturationReport
from tests.tiny import Net, fit, quiet

pytestmark = [
    *quiet,
    pytest.mark.usefixtures("unchecked_pooling"),
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning"),
]

looks = pytest.mark.skipif(not MODES_LET_COMPILE, reason="this torch compiles nothing that meets a mode")
NOT_FOLLOWED = "no step was followed as it ran"


def compile_something_else():
    torch.compile(torch.relu, backend="eager")(torch.ones(3))


class TokenFirst(nn.Module):
    """Samples come first into it and second into its layers; the last layer to be called feeds another one's input."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 8)
        self.body = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1)
        self.one, self.other = nn.Linear(8, 3), nn.Linear(8, 2)

    def forward(self, x):
        h = self.body(self.inner(x.transpose(0, 1)))
        return self.one(h), self.other(h)


class Learner(Net):
    """Learns nothing sensible; ``extra`` is part of its loss in odd steps, and in all from ``since`` on."""

    def __init__(self, extra=None, since=1, odd=True):
        super().__init__(lr=0.01)
        torch.manual_seed(1)
        self.body = TokenFirst()
        self.extra, self.since, self.odd = extra, since, odd

    def training_step(self, batch, batch_idx):
        one, other = self(batch)
        loss = one.square().mean() + other.square().mean()
        if self.extra is not None and batch_idx >= self.since and (batch_idx % 2 or not self.odd):
            loss = loss + self.extra(one)
        return loss


def tokens():
    generator = torch.Generator().manual_seed(0)
    return DataLoader(torch.randn(24, 5, 4, generator=generator), batch_size=6)


def train(model, *callbacks, **options):
    torch.manual_seed(2)
    fit(model, *callbacks, train=tokens(), max_epochs=2, **options)
    return [*copy.deepcopy(model.state_dict()).values(), torch.rand(1)]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def told(report):
    return {n: (layer.rows, layer.samples, layer.saturation) for n, layer in report.layers.items()}


@looks
def test_a_training_beside_something_compiled_is_looked_at_from_its_second_step_on():
    plain, monitor = SaturationMonitor(stages="train"), SaturationMonitor(stages="train")
    expected = train(Learner(), plain)
    compile_something_else()
    assert same(train(Learner(), monitor), expected)
    assert {layer.samples for layer in plain.reports[0].layers.values()} == {18}  # the first was known too late
    assert {layer.samples for layer in monitor.reports[0].layers.values()} == {12}
    assert told(monitor.reports[1]) == told(plain.reports[1])
    for report in monitor.reports:
        assert report.output_layers == plain.reports[1].output_layers == ("body.one", "body.other")
        assert report.followed
        assert NOT_FOLLOWED not in str(report)


def test_a_window_that_begins_anew_may_have_rows_of_another_width():
    monitor = DimensionMonitor(stages="train", pooling="flatten")
    train(Learner(), monitor)
    widths = {name.rpartition(".")[2]: layer.features for name, layer in monitor.reports[0].layers.items()}
    assert widths["linear1"] == 5 * 16


@looks
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_the_window_of_a_checkpoint_keeps_what_it_held(tmp_path):
    def run(**options):
        monitor = SaturationMonitor(stages="train")
        kept = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=2, save_top_k=-1)
        fit(Net(0.1), monitor, kept, enable_checkpointing=True, **options)
        return monitor

    run()
    compile_something_else()
    monitor = run(ckpt_path=tmp_path / "step=2.ckpt")
    assert {layer.samples for layer in monitor.reports[-1].layers.values()} == {24}  # 2 before, and the last of 2
    assert monitor.reports[-1].followed


@pytest.mark.parametrize(("since", "odd"), [(0, False), (1, True), (1, False)], ids=["always", "from the second", "on"])
def test_a_step_that_runs_compiled_stays_what_it_is_and_reports_say_that_nobody_looked(since, odd):
    calls = []

    def backend(graph, _):  # not what the function says, to the last bit: who runs it eagerly is found out
        calls.append(graph)
        return lambda *inputs: tuple(out * 1.001 for out in graph.forward(*inputs))

    def extra(x):
        return x.square().mean()

    def learner():
        compiled = torch.compile(extra, backend=backend, fullgraph=True)
        compile_something_else()
        return Learner(compiled, since=since, odd=odd)

    expected = train(learner())
    monitors = SaturationMonitor(stages="train"), DimensionMonitor(stages="train")
    calls.clear()
    assert same(train(learner(), *monitors), expected)
    assert calls
    for report in (monitors[0].reports[-1], monitors[1].reports[-1]):
        assert not report.followed
        assert NOT_FOLLOWED in str(report)
        assert not type(report).from_state(report.to_state()).followed


def test_states_that_do_not_say_are_of_followed_steps():
    assert SaturationReport.from_state({"layers": {}}).followed
