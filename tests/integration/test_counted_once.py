"""Whatever a user does around it, a forward pass within a step counts, and counts once."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder, ModelSummary
from lightning.pytorch.tuner import Tuner
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader

from lightning_saturation import SaturationMonitor
from tests.tiny import BATCH, LAYERS, SAMPLES, Net, assert_holds, batches, data, fit, outputs, quiet, seen, trainer

pytestmark = quiet

ONCE = dict.fromkeys(LAYERS, SAMPLES)


def monitored(model, *callbacks, **options):
    """Train ``model`` for an epoch and return the monitor."""
    monitor = SaturationMonitor()
    fit(model, monitor, *callbacks, **options)
    return monitor


def assert_once(monitor, model):
    (report,) = monitor.reports
    assert not report.partial
    assert_holds(report, outputs(model.body, data().tensors[0]))


def test_a_window_holds_the_outputs_of_its_epoch():
    assert_once(monitored(model := Net()), model)


def test_double_precision_keeps_every_digit():
    monitor = monitored(model := Net(), precision="64-true")
    assert_holds(monitor.reports[0], outputs(model.body, data().tensors[0].double()), rtol=1e-12)


def test_gradient_accumulation_loses_and_adds_nothing():
    assert_once(monitored(model := Net(), accumulate_grad_batches=3), model)


class Checkpointed(Net):
    reentrant = False

    def training_step(self, batch, batch_idx):
        x, y = batch
        x = x.clone().requires_grad_()  # the reentrant kind needs an input with a gradient
        return nn.functional.cross_entropy(checkpoint(self.body, x, use_reentrant=self.reentrant), y)


class Reentrant(Checkpointed):
    reentrant = True


@pytest.mark.parametrize("kind", [Checkpointed, Reentrant])
def test_recomputation_in_backward_does_not_count(kind):
    calls = []
    model = kind()
    model.body.first.register_forward_hook(lambda *_: calls.append(1))
    monitor = monitored(model)
    assert len(calls) == 2 * SAMPLES / 8  # the layers did run twice
    assert_once(monitor, model)


def test_checkpoint_wrappers_count_once_and_stay_out_of_names():
    model = Net()
    model.body.second = checkpoint_wrapper(model.body.second)
    assert seen(monitored(model)) == [ONCE]


@pytest.mark.parametrize("kind", [Checkpointed, Reentrant])
def test_recomputation_under_bf16_autocast_does_not_count(kind):
    assert seen(monitored(kind(), precision="bf16-mixed")) == [ONCE]


class Shared(Net):
    def forward(self, x):
        return self.body.head(self.body.second(self.body.first(x)) + self.body.second(self.body.first(-x)))


def test_a_layer_used_twice_counts_both_uses():
    monitor = monitored(model := Shared())
    x = data().tensors[0]
    with torch.no_grad():
        first = torch.cat([model.body.first(x), model.body.first(-x)])
        second = model.body.second(first)
        head = model.body.head(second[: len(x)] + second[len(x) :])
    assert_holds(monitor.reports[0], dict(zip(LAYERS, (first, second, head), strict=True)))


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_half_precision_outputs_are_taken_as_given(precision):
    monitor = monitored(model := Net(), precision=precision)
    reference = Net()  # weights on the way out of `fit` are those before it
    x = data().tensors[0]
    if precision == "bf16-true":
        reference, x = reference.to(torch.bfloat16), x.to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
        expected = outputs(reference.body, x)
    assert {rows.dtype for rows in expected.values()} == {torch.bfloat16}
    assert_holds(monitor.reports[0], expected)
    assert model.body.first.weight.dtype == reference.body.first.weight.dtype


def test_fp16_autocast_is_taken_as_given():
    class Half(Net):
        def training_step(self, batch, batch_idx):
            with torch.autocast("cpu", torch.float16):
                return super().training_step(batch, batch_idx)

    model, got = Half(), {name: [] for name in LAYERS}
    for name in LAYERS:
        # Products in fp16 round differently from call to call: the truth is what came out in training itself.
        model.get_submodule(name).register_forward_hook(lambda _, args, rows, name=name: got[name].append(rows.clone()))
    monitor = monitored(model)
    expected = {name: torch.cat(rows) for name, rows in got.items()}
    assert {rows.dtype for rows in expected.values()} == {torch.float16}
    assert_holds(monitor.reports[0], expected)


def test_inference_mode_and_training_share_a_monitor():
    model, monitor = Net(), SaturationMonitor()
    done = trainer(monitor, inference_mode=True, max_epochs=1)
    expected = outputs(model.body, data().tensors[0])
    done.validate(model, batches(), verbose=False)
    done.fit(model, batches(), batches())
    done.test(model, batches(), verbose=False)
    done.fit_loop.max_epochs = 2
    done.fit(model, batches(), batches())
    assert [report.stage for report in monitor.reports] == ["val", "train", "val", "test", "train", "val"]
    for report in monitor.reports:
        assert_holds(report, expected)


def compile_module(model, **options):
    return torch.compile(model, **options)


def compile_in_place(model, **options):
    model.compile(**options)
    return model


def compile_body(model, **options):
    model.body = torch.compile(model.body, **options)
    return model


def compile_body_in_place(model, **options):
    model.body.compile(**options)
    return model


@pytest.fixture
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("first_run", ["before", "after"])
@pytest.mark.parametrize("how", [compile_module, compile_in_place, compile_body, compile_body_in_place])
def test_compiled_code_counts_once_whenever_it_was_compiled(how, first_run):
    model = how(Net(), backend="eager", fullgraph=True)
    if first_run == "before":
        model.training_step(next(iter(batches())), 0)  # code without hooks is compiled by now
        model(data().tensors[0][:BATCH])
    monitor = monitored(model)
    (report,) = monitor.reports
    assert_holds(report, outputs(Net().body, data().tensors[0]), rtol=1e-6)


@pytest.mark.usefixtures("fresh_compiler")
def test_a_second_fit_of_compiled_code_counts_once():
    model = compile_body(Net(), backend="aot_eager")
    assert [seen(monitored(model)) for _ in range(2)] == [[ONCE], [ONCE]]


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("kind", [Checkpointed, Reentrant])
def test_recomputation_in_compiled_code_does_not_count(kind):
    assert seen(monitored(compile_body(kind(), backend="aot_eager"))) == [ONCE]


def test_the_sanity_check_does_not_count():
    monitor = monitored(Net(), val=batches(seed=1), num_sanity_val_steps=-1)
    assert seen(monitor) == [ONCE]
    assert seen(monitor, "val") == [ONCE]


def test_a_model_summary_with_an_example_input_does_not_count():
    class Summarised(Net):
        example_input_array = torch.ones(5, 4)

    assert seen(monitored(Summarised(), ModelSummary(), enable_model_summary=True)) == [ONCE]


class Loaded(Net):
    """Makes its own loaders, which tuners need."""

    batch_size = 8

    def train_dataloader(self):
        return DataLoader(data(), batch_size=self.batch_size)

    def val_dataloader(self):
        return batches(16)


@pytest.mark.filterwarnings("ignore:.*lr_find")
@pytest.mark.parametrize("how", ["tuner", "callback"])
def test_the_search_for_a_learning_rate_does_not_count(how, tmp_path):
    monitor = SaturationMonitor()
    finder = LearningRateFinder(num_training_steps=6, update_attr=False)
    callbacks = [monitor, finder] if how == "callback" else [monitor]
    done = trainer(*callbacks, default_root_dir=tmp_path)
    model = Loaded(lr=1e-3)
    if how == "tuner":
        Tuner(done).lr_find(model, num_training=6, update_attr=False)
        assert monitor.reports == []
    done.fit(model)
    assert seen(monitor) == [ONCE]


class SearchAtEveryEpoch(LearningRateFinder):
    def on_fit_start(self, *args):
        return

    def on_train_epoch_start(self, trainer, pl_module):
        self.lr_find(trainer, pl_module)


def test_a_search_between_epochs_neither_counts_nor_loses_history(tmp_path):
    monitor = SaturationMonitor()
    finder = SearchAtEveryEpoch(num_training_steps=6, update_attr=False)
    done = trainer(monitor, finder, default_root_dir=tmp_path, max_epochs=2)
    done.fit(Loaded(lr=1e-3))
    assert seen(monitor) == [ONCE, ONCE]


@pytest.mark.parametrize("how", ["tuner", "callback"])
def test_the_search_for_a_batch_size_does_not_count(how, tmp_path):
    monitor = SaturationMonitor()
    finder = BatchSizeFinder(max_trials=2, init_val=4, steps_per_trial=2)
    callbacks = [monitor, finder] if how == "callback" else [monitor]
    done = trainer(*callbacks, default_root_dir=tmp_path)
    model = Loaded()
    if how == "tuner":
        Tuner(done).scale_batch_size(model, max_trials=2, init_val=4, steps_per_trial=2)
    done.fit(model)
    assert seen(monitor) == [ONCE]


def test_several_validation_loaders_share_a_window():
    monitor = monitored(model := Net(), val=[batches(16, seed=1), batches(24, seed=2)])
    both = torch.cat([data(16, 1).tensors[0], data(24, 2).tensors[0]])
    assert_holds(monitor.reports[1], outputs(model.body, both))


def test_validation_within_an_epoch_counts_apart_from_it():
    monitor = monitored(Net(), val=batches(16), val_check_interval=0.25)
    assert seen(monitor) == [ONCE]
    assert seen(monitor, "val") == [dict.fromkeys(LAYERS, 16)] * 4


class Adversarial(Net):
    """Two optimizers, and a discriminator that runs twice a step."""

    automatic_optimization = False

    def __init__(self):
        super().__init__()
        self.discriminator = nn.Linear(3, 1)

    def training_step(self, batch, batch_idx):
        x, _ = batch
        for optimizer in self.optimizers():
            loss = self.discriminator(self(x)).square().mean()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()

    def configure_optimizers(self):
        parts = (self.body, self.discriminator)
        return [torch.optim.SGD(part.parameters(), lr=0.0) for part in parts]


def test_manual_optimisation_with_two_optimizers():
    monitor = monitored(Adversarial())
    assert seen(monitor) == [dict.fromkeys((*LAYERS, "discriminator"), 2 * SAMPLES)]
    assert monitor.reports[0].step == 8


def test_lbfgs_counts_every_closure():
    class Newton(Net):
        def configure_optimizers(self):
            return torch.optim.LBFGS(self.parameters(), lr=0.0, max_iter=2, tolerance_change=0, tolerance_grad=0)

    calls = []
    model = Newton()
    model.body.first.register_forward_hook(lambda module, args, output: calls.append(len(output)))
    assert seen(monitored(model)) == [dict.fromkeys(LAYERS, sum(calls))]
    assert sum(calls) > SAMPLES


def test_lazy_layers():
    class Lazy(Net):
        def __init__(self):
            super().__init__()
            self.body.first = nn.LazyLinear(6)
            self.body.second = nn.LazyLinear(5)

        def configure_optimizers(self):
            return None

    with pytest.warns(UserWarning, match="configure_optimizers"):
        monitor = monitored(model := Lazy())
    assert_once(monitor, model)


def test_layers_made_in_configure_model():
    class Late(Net):
        def __init__(self):
            super().__init__()
            self.made, self.body = self.body, None

        def configure_model(self):
            if self.body is None:
                self.body, self.made = self.made, None

    assert_once(monitored(model := Late()), model)


class Skipping(Net):
    """Runs the second layer for even batches only."""

    def forward(self, x):
        self.calls = getattr(self, "calls", 0) + 1
        hidden = self.body.first(x)
        return self.body.head(self.body.second(hidden) if self.calls % 2 else hidden[:, :5])


def test_layers_that_some_batches_skip():
    assert seen(monitored(Skipping())) == [{**ONCE, "body.second": SAMPLES // 2}]


def test_a_layer_that_is_never_run_is_named_once_and_left_out():
    class Unused(Net):
        def __init__(self):
            super().__init__()
            self.spare = nn.Linear(2, 2)

    with pytest.warns(UserWarning, match=r"No saturation for \['spare'\]: these layers were never run") as caught:
        monitor = monitored(Unused(), max_epochs=2)
    assert len([w for w in caught if "No saturation" in str(w.message)]) == 1
    assert seen(monitor) == [ONCE, ONCE]


def test_hooks_that_never_fire_are_not_silent():
    class Bypassing(Net):
        def forward(self, x):
            for layer in self.body.children():
                x = layer.forward(x)
            return x

    with pytest.warns(UserWarning, match="No saturation for .*body.first"):
        monitor = monitored(Bypassing(), max_epochs=2)
    assert monitor.reports == []


def test_a_forward_pass_outside_of_steps_does_not_count():
    class Curious(Callback):
        def on_train_batch_end(self, trainer, pl_module, *args):
            pl_module(torch.ones(100, 4))

        on_train_epoch_start = on_train_epoch_end = on_train_batch_end
        on_validation_batch_end = on_validation_epoch_start = on_validation_epoch_end = on_train_batch_end

    monitor = monitored(Net(), Curious(), val=batches(16), max_epochs=2)
    assert seen(monitor) == [ONCE] * 2
    assert seen(monitor, "val") == [dict.fromkeys(LAYERS, 16)] * 2


def test_an_epoch_that_the_module_ends_early_closes_its_window():
    class Ending(Net):
        def on_train_batch_start(self, batch, batch_idx):
            return -1 if batch_idx == 2 else None

        def on_train_epoch_end(self):
            self(torch.ones(100, 4))  # the end of the batch that never was did not say that recording is over

    assert seen(monitored(Ending(), max_epochs=2)) == [dict.fromkeys(LAYERS, 16)] * 2
