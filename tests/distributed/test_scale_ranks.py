"""Sketches, budgets and tensor-parallel layers over gloo ranks."""

import warnings

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

from lightning_saturation.capture.select import CaptureOptions
from lightning_saturation.covariance.accumulation import Accumulation
from lightning_saturation.covariance.reduction import merge_over_ranks
from lightning_saturation.covariance.sketch import add_to_sketch, empty_sketch
from lightning_saturation.covariance.sketch_bounds import dimension_bracket
from lightning_saturation.covariance.sketched_covariance import SketchedCovariance
from lightning_saturation.covariance.spectrum import intrinsic_dimension
from lightning_saturation.saturation.window import Window, saturation_tracker
from tests.distributed.ranks import error_on_each, on_ranks


def rows(rank, n=150, d=40):
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((d, d)) * 0.7 ** np.arange(d)
    noise = np.random.default_rng(rank + 1).standard_normal((n + 7 * rank, d))
    return torch.from_numpy(noise @ mixing.T + 1e3 * rank)


def exact(world, delta):
    whole = np.concatenate([rows(rank).numpy() for rank in range(world)])
    return intrinsic_dimension(torch.from_numpy(np.linalg.eigvalsh(np.cov(whole.T)).copy()), delta=delta)


def local_sketch(rank, size=16):
    return add_to_sketch(empty_sketch(40, size=size), rows(rank))[0]


@pytest.mark.parametrize("world", [2, 3, 4])
def test_sketches_merge_over_any_number_of_ranks(world):
    def job(rank):
        mine = {"a": local_sketch(rank), "b": None if rank else local_sketch(9)}
        return merge_over_ranks(mine, {"a": 40, "b": 40}, {"a": 16, "b": 16})

    results = on_ranks(world, job)
    whole = np.concatenate([rows(rank).numpy() for rank in range(world)])
    centred = whole - whole.mean(0)
    for result in results:
        assert all(torch.equal(x, y) for x, y in zip(result["a"], results[0]["a"], strict=True))
        error = np.linalg.eigvalsh(centred.T @ centred - (result["a"].rows.T @ result["a"].rows).numpy())
        slack = float(result["a"].rounding) + 1e-12 * float(result["a"].trace)
        assert error[0] >= -slack
        assert error[-1] <= float(result["a"].shrinkage) + slack
        assert int(result["a"].samples) == len(whole)
        np.testing.assert_allclose(result["a"].mean.numpy(), whole.mean(0))
        assert int(result["b"].samples) == len(rows(9))
        for delta in (0.5, 0.9, 0.99):
            bracket = dimension_bracket(result["a"], delta=delta)
            assert bracket.lower <= exact(world, delta) <= bracket.upper


def test_the_metric_gives_all_ranks_the_bounds_of_all_rows():
    def job(rank):
        metric = SketchedCovariance(size=20, delta=0.9)
        if rank != 1:  # a rank without rows takes part all the same
            metric.update(rows(rank))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r".*called before the ``update``")
            bounds = metric.compute()
        return bounds, metric.sketch() is None if rank == 1 else int(metric.samples)

    results = on_ranks(3, job)
    whole = np.concatenate([rows(0).numpy(), rows(2).numpy()])
    truth = intrinsic_dimension(torch.from_numpy(np.linalg.eigvalsh(np.cov(whole.T)).copy()), delta=0.9) / 40
    for bounds, own in results:
        assert torch.equal(bounds, results[0][0])
        assert bounds[0] <= truth <= bounds[1]
        assert own in (True, 150, 164)  # its own rows again, once the numbers are out


def test_metrics_of_other_sizes_on_other_ranks_are_one_error_everywhere():
    def job(rank):
        metric = SketchedCovariance(size=4 + rank)
        metric.update(rows(rank))
        metric.compute()

    messages = error_on_each(2, job)
    assert len(set(messages)) == 1
    assert "SketchedCovariance(size=4)" in messages[0]


@pytest.mark.parametrize("kept", [Accumulation("sketch", 100), Accumulation("exact", 100), Accumulation("sketch")])
def test_windows_agree_on_all_ranks_under_a_budget_and_in_a_sketch(kept):
    def job(rank):
        window = Window(["a", "b"], kept)
        for part in rows(rank).split(30):
            window.add("a", part)
        if rank:
            window.add("b", rows(rank)[:, :5])
        return window.statistics(delta=0.9)

    results = on_ranks(3, job)
    assert results[0] == results[1] == results[2]
    assert list(results[0]) == ["a", "b"]
    layer = results[0]["a"]
    assert layer.samples <= 300 if kept.max_samples else layer.samples == 150 + 157 + 164
    assert layer.saturation_lower <= layer.saturation <= layer.saturation_upper


def test_a_rank_with_more_data_weighs_more_under_a_budget():
    """Each takes as many rows, but those of the rank with four times the data stand for four times as many."""

    def job(rank):
        window = Window(["a"], Accumulation(max_samples=500))
        generator = torch.Generator().manual_seed(rank)
        data = torch.zeros(2_000 * 4**rank, 2)
        data[:, rank] = torch.randn(len(data), generator=generator)
        window.batches = len(data) // 100
        for part in data.split(100):
            window.add("a", part)
        statistics = window.statistics(delta=0.99)["a"]
        return statistics.samples, statistics.eigenvalues

    for samples, eigenvalues in on_ranks(2, job):
        assert samples == 1000
        assert float(eigenvalues[0] / eigenvalues[1]) == pytest.approx(4.0, rel=0.2)


@pytest.mark.parametrize("pooling", ["mean", "positions", "flatten"])
def test_tensor_parallel_layers_are_gathered(pooling):
    def model():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 10), nn.GELU(), nn.Linear(10, 7, bias=False))

    def measure(net):
        tracker = saturation_tracker(net, CaptureOptions(pooling=pooling), stages=["test"])
        tracker.attach()
        tracker.record("test")
        generator = torch.Generator().manual_seed(1)
        for _ in range(4):
            net(torch.randn(30, 3, 6, generator=generator))
        tracker.detach()
        assert not tracker._capture.sharded
        from lightning_saturation.covariance.ranks import LOCAL

        return tracker.windows["test"].statistics(delta=0.99, group=LOCAL)

    def job(rank):
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

        mesh = init_device_mesh("cpu", (dist.get_world_size(),), mesh_dim_names=("tensor_parallel",))
        net = parallelize_module(model(), mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})
        return measure(net)

    expected = measure(model())
    for result in on_ranks(2, job):
        assert list(result) == ["0", "2"]
        for name, statistics in result.items():
            assert statistics.features == expected[name].features
            assert statistics.samples == expected[name].samples
            assert statistics.intrinsic_dimension == expected[name].intrinsic_dimension
            torch.testing.assert_close(statistics.eigenvalues, expected[name].eigenvalues, rtol=1e-4, atol=1e-6)


def test_uneven_slices_are_gathered_too():
    def job(rank):
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

        torch.manual_seed(0)
        mesh = init_device_mesh("cpu", (2,))
        net = parallelize_module(nn.Linear(6, 7), mesh, ColwiseParallel())
        seen = []
        from lightning_saturation import capture

        with capture(net, lambda name, x: seen.append(x)):
            net(torch.ones(3, 6))
        return seen[0]

    torch.manual_seed(0)
    expected = nn.Linear(6, 7)(torch.ones(3, 6)).detach()
    for rows_seen in on_ranks(2, job):
        torch.testing.assert_close(rows_seen, expected)
