"""What counts in a training, whoever else runs the model, and whatever becomes of its layers."""

import pytest
import torch
from lightning.fabric import Fabric
from lightning.pytorch import Callback
from torch import nn

from lightning_saturation import SaturationMonitor, measure_saturation
from tests.tiny import LAYERS, SAMPLES, Net, batches, quiet, trainer

pytestmark = quiet


class Busybody(Callback):
    """Runs the model around every step, as callbacks that watch adversaries or draw samples do."""

    def run(self, trainer, pl_module, *_):
        with torch.no_grad():
            pl_module(torch.randn(100, 4))

    on_train_batch_start = on_train_batch_end = on_before_zero_grad = on_validation_batch_end = run


@pytest.mark.parametrize("first", [True, False])
def test_forwards_of_other_callbacks_do_not_count_whatever_the_order(first):
    monitor = SaturationMonitor()
    callbacks = [Busybody(), monitor] if first else [monitor, Busybody()]
    trainer(*callbacks).fit(Net(0.1), batches(), batches())
    for report in monitor.reports:
        assert {layer.samples for layer in report.layers.values()} == {SAMPLES}


class Late(Net):
    """Gets another network when fitting starts."""

    def on_fit_start(self):
        self.body = type(self.body)()


def test_a_network_that_is_replaced_when_fitting_starts_is_the_one_that_is_watched():
    monitor = SaturationMonitor(stages=("train",))
    trainer(monitor).fit(Late(), batches())
    assert tuple(monitor.reports[0].layers) == LAYERS
    assert monitor.reports[0].layers[LAYERS[0]].samples == SAMPLES


class Growing(Net):
    """Gets another layer in the second epoch."""

    def on_train_epoch_start(self):
        if self.current_epoch == 1:
            self.body.second = nn.Linear(6, 5)


def test_a_layer_that_is_replaced_while_training_is_watched_from_the_next_window_on():
    monitor = SaturationMonitor(stages=("train",))
    model = Growing()
    trainer(monitor, max_epochs=3).fit(model, batches())
    assert [tuple(report.layers) for report in monitor.reports] == [LAYERS] * 3
    assert not model.body.second._forward_hooks


def test_fabric_adds_nothing_to_names():
    model = Fabric(accelerator="cpu").setup_module(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)))
    assert list(measure_saturation(model, [torch.randn(9, 4)], layers=["0"], progress=False).layers) == ["0"]


@pytest.mark.filterwarnings("ignore:.*deprecated")
def test_what_runs_no_hooks_is_refused_with_the_reason():
    plain = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    exported = torch.export.export(plain, (torch.zeros(2, 3),)).module()
    for model, said in ((torch.jit.script(plain), "TorchScript runs no hooks"), (exported, "what was exported")):
        with pytest.raises(ValueError, match=said):
            measure_saturation(model, [torch.randn(5, 3)], progress=False)
