"""FreezeTraining: what stands still stands still, costs nothing, resumes, works under DDP, and can be undone."""

import time

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn

from lightning_saturation import FreezeTraining, SaturationMonitor, SimilarityMonitor
from tests.similarity.test_monitor import Net, loader, pytestmark, trainer  # noqa: F401  (the module's warning filters)


class Decaying(Net):
    """Momentum and weight decay would move parameters without any gradient."""

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.05, weight_decay=0.5)


class Recorder(Callback):
    """Parameters and buffers before every step, and which of them learn."""

    def __init__(self):
        self.states, self.learning = [], []

    def on_train_batch_start(self, trainer, pl_module, *args):
        self.states.append({name: value.clone() for name, value in pl_module.state_dict().items()})
        self.learning.append({name for name, p in pl_module.named_parameters() if p.requires_grad})


FIRST = {"layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"}


def test_linear_schedule_freezes_from_the_input_at_equal_shares(tmp_path):
    recorder, freeze = Recorder(), FreezeTraining()
    # 6 epochs of 8 batches; three blocks: 0 with its batch norm from step 16 on, 4 from step 32 on, 6 never.
    run = trainer(tmp_path, freeze, recorder, epochs=6)
    run.fit(Decaying(), loader(), loader(shuffle=False))
    assert freeze.history == [(16, 1), (32, 2)]
    assert [learning >= FIRST for learning in recorder.learning] == [True] * 16 + [False] * 32
    assert ["layers.4.weight" in learning for learning in recorder.learning] == [True] * 32 + [False] * 16
    assert all("layers.6.weight" in learning for learning in recorder.learning)
    assert freeze.frozen == ("layers.0", "layers.1", "layers.4")
    assert float(run.callback_metrics["freeze/layers"]) == 2
    assert float(run.callback_metrics["freeze/parameters"]) == (4 * 8 + 8) + 16 + (8 * 6 + 6)


def test_nothing_moves_what_is_frozen_neither_decay_nor_batch_norm(tmp_path):
    recorder = Recorder()
    model = Decaying()
    trainer(tmp_path, FreezeTraining(), recorder, epochs=6).fit(model, loader(), loader(shuffle=False))
    frozen_at = recorder.states[16]
    end = model.state_dict()
    for name in (*FIRST, "layers.1.running_mean", "layers.1.running_var", "layers.1.num_batches_tracked"):
        assert torch.equal(end[name], frozen_at[name]), name
        assert not torch.equal(end[name], recorder.states[15][name]), name
    assert not torch.equal(end["layers.6.weight"], recorder.states[-1]["layers.6.weight"])


def test_before_the_first_freeze_training_is_the_same(tmp_path):
    plain, frozen = Recorder(), Recorder()
    for recorder, callbacks in ((plain, []), (frozen, [FreezeTraining()])):
        torch.manual_seed(1)
        trainer(tmp_path, *callbacks, recorder, epochs=6).fit(Decaying(), loader(), loader(shuffle=False))
    for before, after in zip(plain.states[:17], frozen.states[:17], strict=True):
        assert all(torch.equal(before[name], after[name]) for name in before)
    assert not torch.equal(plain.states[17]["layers.0.weight"], frozen.states[17]["layers.0.weight"])


def test_unfreeze_restores_what_learned_and_only_that(tmp_path):
    model = Decaying()
    model.layers[4].bias.requires_grad_(False)
    freeze = FreezeTraining()
    trainer(tmp_path, freeze, epochs=3).fit(model, loader(), loader(shuffle=False))
    assert not model.layers[0].weight.requires_grad
    freeze.unfreeze()
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["layers.4.bias"]
    assert all(module.training for module in model.modules())
    assert freeze.frozen == ()


def test_unfreezing_during_training_ends_the_schedule(tmp_path):
    freeze = FreezeTraining()

    class Release(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 3:
                freeze.unfreeze()

    model = Decaying()
    trainer(tmp_path, freeze, Release(), epochs=6).fit(model, loader(), loader(shuffle=False))
    assert all(p.requires_grad for p in model.parameters())
    assert freeze.history == [(16, 1)]


@pytest.mark.parametrize("schedule", ["linear", "converged"])
def test_resuming_keeps_frozen_layers_still(tmp_path, schedule):
    def callbacks():
        return [SimilarityMonitor(samples=64), FreezeTraining(schedule, tolerance=0.9, patience=1)]

    half = trainer(tmp_path, *callbacks(), epochs=6, max_steps=24)
    if schedule == "linear":
        half = trainer(tmp_path, SimilarityMonitor(samples=64), FreezeTraining(until=0.5), epochs=3)
    half.fit(Decaying(), loader(), loader(shuffle=False))
    frozen = half.callbacks[1].frozen
    assert frozen
    half.save_checkpoint(tmp_path / "half.ckpt")
    model, recorder = Decaying(), Recorder()
    again = trainer(tmp_path, *callbacks(), recorder, epochs=6)
    again.fit(model, loader(), loader(shuffle=False), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert set(frozen) <= set(again.callbacks[1].frozen)
    weights = torch.load(tmp_path / "half.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(model.state_dict()["layers.0.weight"], weights["layers.0.weight"])
    assert torch.equal(model.state_dict()["layers.1.running_mean"], weights["layers.1.running_mean"])
    assert "layers.0.weight" not in recorder.learning[0]
    assert len(recorder.states) == 24


def test_converged_freezes_what_has_come_to_rest(tmp_path):
    model = Net(rate=0.0)
    model.layers[1].momentum = 0.0
    freeze = FreezeTraining("converged", tolerance=0.01, patience=2)
    trainer(tmp_path, SimilarityMonitor(samples=64), freeze, epochs=6).fit(model, loader(), loader(shuffle=False))
    # Two calm windows freeze the first block after epoch 1, two more the second.
    assert freeze.history == [(16, 1), (32, 2)]


def test_converged_leaves_alone_what_moves(tmp_path):
    freeze = FreezeTraining("converged", tolerance=1e-6, patience=1)
    monitor = SimilarityMonitor(samples=64, method="cka")
    trainer(tmp_path, monitor, freeze, epochs=4).fit(Net(rate=0.5), loader(), loader(shuffle=False))
    assert freeze.history == []


def test_converged_watches_saturation_too(tmp_path):
    model = Net(rate=0.0)
    model.layers[1].momentum = 0.0
    freeze = FreezeTraining("converged", monitor="saturation", tolerance=0.9, patience=1, window=3)
    trainer(tmp_path, SaturationMonitor(stages=("train",)), freeze, epochs=6).fit(
        model, loader(), loader(shuffle=False)
    )
    assert freeze.history[0] == (32, 1)  # the fourth window is the first with one three windows before it


class Residual(Net):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, 8),
            *(nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU()) for _ in range(2)),
            nn.Linear(8, 2),
        )


def test_blocks_by_name_patterns(tmp_path):
    freeze = FreezeTraining(blocks=["layers.0", ["layers.1.*", "layers.2"], "layers.3"])
    model = Residual()
    trainer(tmp_path, freeze, epochs=3).fit(model, loader(), loader(shuffle=False))
    assert freeze.frozen == ("layers.0", "layers.1.0", "layers.1.1", "layers.2.0", "layers.2.1")
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["layers.3.weight", "layers.3.bias"]


def test_frozen_layers_cost_no_backward_work():
    from lightning_saturation.freezing.blocks import Freezer, find_blocks

    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(512, 512) for _ in range(8)))
    x = torch.randn(256, 512)

    def step():
        start = time.perf_counter()
        model(x).sum().backward()
        return time.perf_counter() - start

    freezer = Freezer(find_blocks(model, None))
    whole, part = [], []
    for _ in range(15):
        freezer.undo()
        whole.append(step())
        freezer.freeze(7)
        part.append(step())
    assert all(p.grad is None for p in model[:7].parameters())
    # Forward alone is a third of the work: 0.42 of the time here; frozen layers that still worked would take 1.
    assert sorted(part)[3] < 0.7 * sorted(whole)[3]


class Plain(Net):
    """Each rank takes its part of every batch, on whose split nothing depends."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 2))

    def training_step(self, batch, index):
        return super().training_step([part[self.global_rank :: self.trainer.world_size] for part in batch], index)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)


def _distributed(tmp_path, devices):
    model, freeze = Plain(), FreezeTraining()
    options = {"devices": devices, "strategy": "ddp_fork"} if devices > 1 else {}
    run = trainer(tmp_path, freeze, epochs=6, use_distributed_sampler=False, **options)
    run.fit(model, loader(shuffle=False))
    run.save_checkpoint(tmp_path / f"{devices}.ckpt")
    assert float(run.callback_metrics["freeze/layers"]) == 2
    return torch.load(tmp_path / f"{devices}.ckpt", weights_only=True)["state_dict"]


def test_ddp_equals_one_process(tmp_path):
    alone, both = _distributed(tmp_path, 1), _distributed(tmp_path, 2)
    for name, value in alone.items():
        torch.testing.assert_close(both[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "cosine"}, r"`schedule` to be one of \('linear', 'converged'\), got 'cosine'"),
        ({"until": 0.0}, r"`until` in \(0, 1\]"),
        ({"tolerance": 1.0}, r"`tolerance` in \(0, 1\)"),
        ({"patience": 0}, "`patience` of at least 1"),
        ({"window": 0}, "`window` of at least 1"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        FreezeTraining(**options)


def test_bad_trainers_and_models(tmp_path):
    with pytest.raises(ValueError, match=r"match modules with parameters.*got 'stem'"):
        trainer(tmp_path, FreezeTraining(blocks=["stem", "layers.0"])).fit(Net(), loader())
    with pytest.raises(ValueError, match="a monitor called 'similarity'"):
        trainer(tmp_path, FreezeTraining("converged")).fit(Net(), loader())
    with pytest.raises(ValueError, match="a training without end"):
        trainer(tmp_path, FreezeTraining(), epochs=-1).fit(Net(), loader())
    trainer(tmp_path, FreezeTraining(), epochs=0).fit(Net(), loader())  # has an end: its beginning
    with pytest.raises(ValueError, match="at least two blocks"):
        trainer(tmp_path, FreezeTraining(blocks=["layers"])).fit(Net(), loader())
