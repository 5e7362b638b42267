"""Training with the monitor is training without it, and afterwards nothing of it is left on the model."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from torch import nn
from torch.utils.data import DataLoader, Dataset

from lightning_saturation import SaturationMonitor, SaturationStopping
from tests.tiny import LAYERS, SAMPLES, Net, batches, data, fit, interruptible, is_untouched, quiet, seen, trainer

pytestmark = quiet


class Augmented(Dataset):
    """Data that draws from the global generator at every access."""

    def __len__(self):
        return SAMPLES

    def __getitem__(self, index):
        x, y = data()[index]
        return x + 0.1 * torch.randn(4), y


class Random(Net):
    def __init__(self):
        super().__init__(lr=0.1)
        self.dropout = nn.Dropout(0.3)

    def forward(self, x):
        return self.body(self.dropout(x))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.lr)


def trained(*callbacks, **options):
    torch.manual_seed(0)
    model = Random()
    loader = DataLoader(Augmented(), batch_size=8, shuffle=True)
    done = fit(model, *callbacks, train=loader, val=batches(16), max_epochs=3, **options)
    weights = [parameter.detach().clone() for parameter in model.parameters()]
    moments = [value for state in done.optimizers[0].state.values() for value in state.values()]
    return weights, moments, torch.get_rng_state()


@pytest.mark.parametrize("pooling", ["mean", "positions", "median"])
@pytest.mark.parametrize("options", [{}, {"val_check_interval": 0.5}, {"accumulate_grad_batches": 2}])
def test_weights_optimizers_and_generators_are_bitwise_the_same(pooling, options):
    monitors = SaturationMonitor(pooling=pooling), SaturationMonitor(every_n_train_steps=3, name="steps")
    plain, watched = trained(**options), trained(*monitors, **options)
    assert monitors[0].reports
    assert monitors[1].reports
    for before, after in zip(plain, watched, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def attributes(model):
    """Return what each module holds, apart from the values of its parameters."""
    return {
        name: {key: list(value) if isinstance(value, dict) else type(value) for key, value in vars(module).items()}
        for name, module in model.named_modules()
    }


def test_nothing_stays_after_fitting():
    model = Net(lr=0.1)
    plain = Net(lr=0.1)
    fit(plain, val=batches(16))
    fit(model, SaturationMonitor(), SaturationStopping(), val=batches(16))
    assert attributes(model) == attributes(plain)
    assert is_untouched(model)
    assert model.state_dict().keys() == plain.state_dict().keys()


class Failing(Net):
    """Fails in the second batch of one step."""

    def __init__(self, where, error):
        super().__init__(lr=0.1)
        self.where, self.error = where, error

    def fail(self, where, batch_idx):
        if where == self.where and batch_idx == 1:
            raise self.error

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.fail("training", batch_idx)
        return loss

    def validation_step(self, batch, batch_idx):
        super().validation_step(batch, batch_idx)
        self.fail("validation", batch_idx)

    def on_train_epoch_end(self):
        self.fail("epoch end", 1)

    def forward(self, x):
        outputs = super().forward(x)
        self.fail("forward", self.trainer.fit_loop.batch_idx)
        return outputs


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt()], ids=["crash", "ctrl-c"])
@pytest.mark.parametrize("where", ["training", "validation", "epoch end", "forward"])
def test_nothing_stays_after_a_crash_or_ctrl_c(where, error):
    model, monitor, plain = Failing(where, error), SaturationMonitor(), Failing(where, error)
    with interruptible(), pytest.raises((ValueError, SystemExit)):
        fit(plain, val=batches(), num_sanity_val_steps=0)
    with interruptible(), pytest.raises((ValueError, SystemExit)):
        fit(model, monitor, val=batches(), num_sanity_val_steps=0)
    assert is_untouched(model)
    assert attributes(model) == attributes(plain)
    if where in ("training", "forward"):
        assert monitor.reports == []
    else:
        assert seen(monitor) == [dict.fromkeys(LAYERS, SAMPLES)]


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_nothing_stays_after_a_crash_in_evaluation(stage):
    class Crashing(Net):
        def validation_step(self, batch, batch_idx):
            super().validation_step(batch, batch_idx)
            raise ValueError("mine")

        test_step = validation_step

    model = Crashing()
    with pytest.raises(ValueError, match="mine"):
        getattr(trainer(SaturationMonitor()), stage)(model, batches(), verbose=False)
    assert is_untouched(model)


def test_a_crash_in_somebody_elses_hook_leaves_nothing():
    class Clumsy(Callback):
        def on_train_start(self, trainer, pl_module):
            raise ValueError("theirs")

    model = Net()
    with pytest.raises(ValueError, match="theirs"):
        fit(model, SaturationMonitor(), Clumsy())
    assert is_untouched(model)


def test_hooks_of_the_user_stay():
    calls = []
    model = Net()
    handle = model.body.first.register_forward_hook(lambda *_: calls.append(1))
    fit(model, SaturationMonitor())
    assert len(calls) == SAMPLES / 8
    assert list(model.body.first._forward_hooks) == [handle.id]


class Copying(Callback):
    """Copies the model in the middle of training, in every way, and runs the copies within the step."""

    def on_after_backward(self, trainer, pl_module):
        pickled = pickle.dumps(pl_module.body)
        assert b"Capture" not in pickled  # what watches a model is not part of it
        self.copies = [copy.deepcopy(pl_module.body), pickle.loads(pickled)]
        stream = io.BytesIO()
        torch.save(pl_module.body, stream)
        stream.seek(0)
        self.copies.append(torch.load(stream, weights_only=False))
        for other in self.copies:
            other(torch.ones(8, 4))


def test_copies_made_during_training_do_not_count():
    monitor, copying = SaturationMonitor(), Copying()
    fit(model := Net(lr=0.1), monitor, copying)
    assert seen(monitor) == [dict.fromkeys(LAYERS, SAMPLES)]
    for other in copying.copies:
        assert other.state_dict().keys() == model.body.state_dict().keys()
        hooks = [hook for layer in other.modules() for hook in layer._forward_hooks.values()]
        assert all(vars(hook) == {} for hook in hooks)


def test_a_model_copies_pickles_and_saves_as_before_its_training(tmp_path):
    model = Net(lr=0.1)
    fit(model, SaturationMonitor())
    assert b"lightning_saturation" not in pickle.dumps(model.body)
    for twin in (pickle.loads(pickle.dumps(model.body)), copy.deepcopy(model.body)):
        assert is_untouched(twin)
        assert attributes(twin) == attributes(model.body)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    Net().load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))


@pytest.mark.parametrize("averaging", [lambda: StochasticWeightAveraging(0.01, swa_epoch_start=1), WeightAveraging])
def test_averaged_copies_of_the_weights_do_not_count_and_carry_nothing(averaging):
    monitor = SaturationMonitor()
    fit(model := Net(lr=0.01), monitor, averaging(), max_epochs=3)
    assert seen(monitor) == [dict.fromkeys(LAYERS, SAMPLES)] * 3
    assert is_untouched(model)
