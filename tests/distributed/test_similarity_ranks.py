"""Similarity metrics on two ranks: uneven shards, a rank without rows, and the same error on all ranks."""

import datetime
import functools

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torchmetrics import MetricCollection

from lightning_saturation import DFTCCA, PWCCA, SVCCA, ClassSimilarity, LinearCKA, Procrustes, compare_representations

METRICS = {
    "svcca": functools.partial(SVCCA, delta=0.9),
    "pwcca": PWCCA,
    "cka": LinearCKA,
    "debiased": functools.partial(LinearCKA, debiased=True),
    "procrustes": Procrustes,
    "classes": ClassSimilarity,
}


def rows():
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.standard_normal((60, 5)))
    x[:20] += 1e3  # the shards' means lie far apart
    return x, x[:, :4] @ torch.from_numpy(rng.standard_normal((4, 4))) + torch.from_numpy(rng.standard_normal((60, 4)))


def maps():
    rng = np.random.default_rng(1)
    x = torch.from_numpy(rng.standard_normal((60, 3, 4, 5)))
    x[:20] += 1e3
    return x, x[:, :2] + torch.from_numpy(rng.standard_normal((60, 2, 4, 5)))


def on_two_ranks(work, tmp_path):
    """Return what ``work(rank)`` returned on each of two gloo processes."""
    mp.start_processes(_worker, args=(work, tmp_path), nprocs=2, start_method="fork")
    return [torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(2)]


def _worker(rank, work, folder):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", f"file://{folder}/store", rank=rank, world_size=2, timeout=datetime.timedelta(seconds=20)
    )
    try:
        torch.save(work(rank), folder / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


def _everything(shards, rank):
    part = shards[rank]
    collection = MetricCollection({name: build() for name, build in METRICS.items()})
    dft = DFTCCA()
    if part is not None:
        x, y = rows()
        for batch in np.array_split(np.arange(60)[part], 3):
            collection.update(x[batch], y[batch])
        dft.update(*(m[part] for m in maps()))
    local = collection["svcca"].samples.clone()
    found = {**{name: metric.compute() for name, metric in collection.items()}, "dft": dft.compute()}
    again = {name: metric.compute() for name, metric in collection.items()}
    assert all(torch.equal(found[name], value) for name, value in again.items())
    assert torch.equal(collection["svcca"].samples, local)  # synchronising leaves this rank's own rows behind
    return found


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric:UserWarning")
@pytest.mark.parametrize(
    "shards", [(slice(0, 20), slice(20, 60)), (None, slice(0, 60)), (slice(0, 60), None)], ids=["uneven", "0", "1"]
)
def test_ranks_equal_one_process(shards, tmp_path):
    found = on_two_ranks(functools.partial(_everything, shards), tmp_path)
    for name, build in METRICS.items():
        metric = build()
        metric.update(*rows())
        torch.testing.assert_close(found[0][name], metric.compute(), rtol=1e-8, atol=1e-8)
        assert torch.equal(found[0][name], found[1][name])
    metric = DFTCCA()
    metric.update(*maps())
    torch.testing.assert_close(found[0]["dft"], metric.compute(), rtol=0, atol=1e-8)
    assert torch.equal(found[0]["dft"], found[1]["dft"])


def _other_widths(rank):
    x, y = rows()
    metric = SVCCA()
    metric.update(x[:, : 5 - rank], y)
    dft = DFTCCA()
    left, right = maps()
    dft.update(left[..., : 5 - rank], right[..., : 5 - rank])
    return [_error_of(broken) for broken in (metric, dft)]


def _error_of(metric):
    with pytest.raises(RuntimeError) as caught:
        metric.compute()
    return str(caught.value)


def test_other_widths_are_one_error_on_all_ranks(tmp_path):
    found = on_two_ranks(_other_widths, tmp_path)
    assert found[0] == found[1]
    assert "same widths on every rank, got {0: (5, 4), 1: (4, 4)} by rank" in found[0][0]
    assert "{0: '3 and 2 channels of 4×5', 1: '3 and 2 channels of 4×4'} by rank" in found[0][1]


def _nobody(rank):
    return [build().compute() for build in (SVCCA, DFTCCA)]


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric:UserWarning")
def test_no_row_on_any_rank_is_missing(tmp_path):
    assert all(value.isnan() for values in on_two_ranks(_nobody, tmp_path) for value in values)


def _compare(shards, method, rank):
    torch.manual_seed(0)
    models = [torch.nn.Sequential(torch.nn.Conv2d(2, c, 3), torch.nn.ReLU(), torch.nn.Conv2d(c, 3, 2)) for c in (4, 3)]
    data = torch.from_numpy(np.random.default_rng(2).standard_normal((60, 2, 6, 6))).float()
    part = shards[rank] if shards else slice(0, 60)
    batches = [] if part is None else data[part].split(15)
    group = dist.group.WORLD if shards else None
    options = {"method": method, "resize": True, "progress": False, "process_group": group}
    return compare_representations(*models, batches, **options)


@pytest.mark.parametrize("method", ["svcca", "debiased_cka", "dft_cca"])
@pytest.mark.parametrize("shards", [(slice(0, 20), slice(20, 60)), (None, slice(0, 60))], ids=["uneven", "nothing"])
def test_comparing_on_ranks_equals_one_process(shards, method, tmp_path):
    found = on_two_ranks(functools.partial(_compare, shards, method), tmp_path)
    alone = _compare(None, method, 0)
    assert torch.equal(found[0].values, found[1].values)
    torch.testing.assert_close(found[0].values, alone.values, rtol=0, atol=1e-6)
    assert found[0].samples == alone.samples == 60
