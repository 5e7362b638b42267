"""The monitor and the stopper in Trainers on several processes."""

from __future__ import annotations

import os
import re
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader, Subset

from lightning_saturation import SaturationMonitor, SaturationStopping, measure_saturation
from tests.distributed.ranks import error_on_each, on_ranks
from tests.tiny import LAYERS, Net, assert_holds, batches, data, fit, is_untouched, outputs, quiet, seen

pytestmark = [*quiet, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that are forked")]

WORLDS = (2, 3)


def start(rank, world):
    """Let a Trainer in this process believe that it was launched as one of ``world``; they have met already."""
    os.environ.update(
        LOCAL_RANK=str(rank), NODE_RANK="0", WORLD_SIZE=str(world), MASTER_ADDR="127.0.0.1", MASTER_PORT="0"
    )


def shard(rank, world):
    """Return four batches of this rank's own part of 96 samples, smaller than those of the rank before it."""
    sizes = [40, 32, 24] if world == 3 else [56, 40]
    begin = sum(sizes[:rank])
    return DataLoader(Subset(data(96), range(begin, begin + sizes[rank])), batch_size=sizes[rank] // 4)


def train(rank, world, model, *callbacks, **options):
    start(rank, world)
    strategy = DDPStrategy(process_group_backend="gloo", find_unused_parameters=options.pop("unused", False))
    options = {"train": shard(rank, world), "precision": "64-true", **options}
    return fit(model, *callbacks, strategy=strategy, devices=world, use_distributed_sampler=False, **options)


def told(monitor, done):
    """Return all that a rank knows at the end."""
    metrics = {key: float(value) for key, value in done.callback_metrics.items()}
    return monitor.reports, metrics, (done.current_epoch, done.global_step)


def assert_alike(results):
    """Check that all ranks hold bitwise the same."""
    (reports, *first), *others = results
    for theirs, *other in others:
        assert other == first
        assert [report.to_records() for report in theirs] == [report.to_records() for report in reports]
        for report, own in zip(theirs, reports, strict=True):
            assert list(report.layers) == list(own.layers)
            for name, layer in report.layers.items():
                kept = own.layers[name].eigenvalues  # of each stage's last window
                assert (layer.eigenvalues is None) == (kept is None)
                assert kept is None or torch.equal(layer.eigenvalues, kept)


@pytest.mark.parametrize("world", WORLDS)
def test_uneven_shards_give_the_numbers_of_one_process_to_every_rank(world):
    def job(rank):
        model, monitor = Net(), SaturationMonitor()
        done = train(rank, world, model, monitor, val=shard(rank, world), val_check_interval=0.5, max_epochs=2)
        assert is_untouched(model)
        return told(monitor, done)

    results = on_ranks(world, job)
    assert_alike(results)
    expected = outputs(Net().double().body, data(96).tensors[0].double())
    reports, metrics, _ = results[0]
    assert [report.stage for report in reports] == ["val", "train", "val"] * 2
    for report in reports:
        assert_holds(report, expected, rtol=1e-12)
    assert metrics["saturation/train/average"] == pytest.approx(reports[-2].average)


class Choosy(Net):
    """Does not run its second layer on the ranks given."""

    def __init__(self, without):
        super().__init__()
        self.without = without

    def forward(self, x):
        hidden = self.body.first(x)
        return self.body.head(hidden[:, :5] if self.global_rank in self.without else self.body.second(hidden))


@pytest.mark.parametrize("without", [(0,), (1,)])
def test_a_layer_that_one_rank_never_runs(without):
    def job(rank):
        monitor = SaturationMonitor()
        done = train(rank, 2, Choosy(without), monitor, unused=True)
        return told(monitor, done)

    results = on_ranks(2, job)
    assert_alike(results)
    (report,) = results[0][0]
    assert {name: layer.samples for name, layer in report.layers.items()} == {
        "body.first": 96,
        "body.second": 40 if without == (0,) else 56,
        "body.head": 96,
    }


def test_a_rank_that_runs_none_of_the_layers():
    class Idle(Net):
        def forward(self, x):
            return self.spare(x) if self.global_rank else self.body(x)

        def __init__(self):
            super().__init__()
            self.spare = nn.Linear(4, 3)

    def job(rank):
        monitor = SaturationMonitor(layers="body.*")
        return told(monitor, train(rank, 2, Idle(), monitor, unused=True))

    results = on_ranks(2, job)
    assert_alike(results)
    assert [layer.samples for layer in results[0][0][0].layers.values()] == [56] * 3


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("every_n_train_steps", [None, 4])
def test_all_ranks_stop_together(world, every_n_train_steps):
    def job(rank):
        monitor = SaturationMonitor(every_n_train_steps=every_n_train_steps)
        stopping = SaturationStopping(window=3, patience=2)
        done = train(rank, world, Net(), monitor, stopping, max_epochs=20)
        return *told(monitor, done), stopping.stopped_epoch

    results = on_ranks(world, job)
    assert_alike(results)
    assert [(end, stopped) for *_, end, stopped in results] == [((5, 20), 4)] * world


def test_one_rank_that_has_settled_is_enough_to_stop_all():
    """Whatever made the ranks differ: a decision taken alone would leave the other one waiting."""

    class Partisan(SaturationStopping):
        def _source(self, trainer):
            source = super()._source(trainer)
            if trainer.global_rank == 1:
                self.rule = replace(self.rule, patience=99)
            return source

    def job(rank):
        monitor = SaturationMonitor()
        done = train(rank, 2, Net(), monitor, Partisan(window=3, patience=2), max_epochs=20)
        return done.current_epoch, done.global_step

    assert on_ranks(2, job) == [(5, 20)] * 2


def test_lightnings_early_stopping_on_our_key_stops_all_ranks():
    def job(rank):
        stopping = EarlyStopping("saturation/train/average", patience=2, min_delta=1.0)
        done = train(rank, 2, Net(), stopping, SaturationMonitor(), max_epochs=20)
        return done.current_epoch, stopping.stopped_epoch

    assert on_ranks(2, job) == [(3, 2)] * 2


@pytest.mark.parametrize(
    ("monitor", "message"),
    [
        (lambda rank: SaturationMonitor(exclude=["body.second"] * rank), r"missing \['body.second'\]"),
        (lambda rank: SaturationMonitor(layers=["body.*", "body.frist"][: 1 + rank]), r"missing \['body.first'"),
    ],
)
def test_ranks_that_track_different_layers_all_say_so(monitor, message):
    errors = error_on_each(2, lambda rank: train(rank, 2, Net(), monitor(rank)))
    for error in errors:
        # Where a rank cannot even choose its layers, all are told so.
        same = error.startswith("RuntimeError: Expected every rank to track the same layers, but rank 1 differs")
        failed = error.startswith("RankError: Rank 1 failed: ValueError: Expected `layers` to name modules")
        assert (same and re.search(message, error)) or failed


def test_ranks_that_make_the_same_mistake_are_told_of_that():
    errors = error_on_each(2, lambda rank: train(rank, 2, Net(), SaturationMonitor(layers=["body.frist"])))
    assert all(error.startswith("ValueError: Expected `layers` to name modules") for error in errors)


def test_ranks_that_see_different_widths_all_say_so():
    class Uneven(Net):
        def __init__(self):
            super().__init__()
            self.free = nn.Identity()

        def training_step(self, batch, batch_idx):
            self.free(torch.ones(8, 5 + self.global_rank))
            return self.loss(batch)

    errors = error_on_each(2, lambda rank: train(rank, 2, Uneven(), SaturationMonitor(layers=["free", "body.*"])))
    for error in errors:
        # A warning on all ranks, which tests take for an error, and a gap.
        assert error.startswith("UserWarning: SaturationMonitor could not measure a window; training goes on.")
        assert "Expected layer 'free' to have the same width on every rank, got 5" in error


def test_evaluation_on_several_ranks():
    def job(rank):
        start(rank, 2)
        monitor = SaturationMonitor()
        model = Net()
        done = fit(model, monitor, limit_train_batches=0, strategy="ddp", devices=2, use_distributed_sampler=False)
        done.validate(model, shard(rank, 2), verbose=False)
        done.test(model, shard(rank, 2), verbose=False)
        return seen(monitor, "val"), seen(monitor, "test")

    whole = [dict.fromkeys(LAYERS, 96)]
    assert on_ranks(2, job) == [(whole, whole)] * 2


def test_sharded_weights_give_the_numbers_of_one_process():
    """FSDP2: hooks see full-width outputs of each rank's own batches."""

    def job(rank):
        model = Net().double().body
        mesh = init_device_mesh("cpu", (2,))
        for layer in model.children():
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
        batches = [(x.double(), y) for x, y in shard(rank, 2)]
        return measure_saturation(model, batches, progress=False, process_group=mesh.get_group())

    reports = on_ranks(2, job)
    expected = outputs(Net().double().body, data(96).tensors[0].double())
    for report in reports:
        assert_holds(report, {name.removeprefix("body."): rows for name, rows in expected.items()}, rtol=1e-12)


def test_a_trainer_that_shards_weights():
    """FSDP2 in the Trainer, whose mesh says over which ranks data is split. (Lightning refuses FSDP1 without a GPU.)"""

    class Sharded(Net):
        def configure_model(self):
            mesh = self.device_mesh["data_parallel"]
            for layer in (*self.body.children(), self):
                fully_shard(layer, mesh=mesh)

    def job(rank):
        start(rank, 2)
        monitor, stopping = SaturationMonitor(), SaturationStopping(window=3, patience=1)
        strategy = ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1, process_group_backend="gloo")
        done = fit(Sharded(), monitor, stopping, strategy=strategy, devices=2, use_distributed_sampler=False,
                   train=shard(rank, 2), max_epochs=9)  # fmt: skip
        return told(monitor, done)

    results = on_ranks(2, job)
    assert_alike(results)
    reports, _, end = results[0]
    assert end == (4, 16)
    assert_holds(reports[0], outputs(Net().body, data(96).tensors[0]), rtol=1e-6)


class Writing(SaturationMonitor):
    """Leaves its samples in a file: what a callback knows does not come back from a process that was spawned."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def on_train_end(self, trainer, pl_module):
        super().on_train_end(trainer, pl_module)
        (self.folder / str(trainer.global_rank)).write_text(str(seen(self)))


class Leaving(Net):
    """Ends the process group before its process ends: gloo's threads may abort a process that takes them along."""

    def teardown(self, stage):
        if dist.is_initialized():
            dist.barrier()  # no rank leaves while another still talks to it
            dist.destroy_process_group()


def test_a_strategy_that_starts_processes_of_its_own(tmp_path):
    """Metrics come back; spawned processes are in ``tests/contract``."""
    model = Leaving()
    done = fit(model, Writing(tmp_path), SaturationStopping(window=3, patience=1), strategy="ddp_fork", devices=2,
               train=batches(32, size=4), max_epochs=9)  # fmt: skip
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(
        "01", str([dict.fromkeys(LAYERS, 32)] * 4)
    )
    assert done.callback_metrics["saturation/train/converged"] == 1.0
    assert is_untouched(model)
