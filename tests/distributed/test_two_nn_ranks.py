"""TwoNN over two and three processes: uneven shards, one rank without a row."""

from __future__ import annotations

import datetime
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from lightning_saturation.dimension.metric import TwoNN
from lightning_saturation.functional import two_nn_estimate

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="this torch has no distributed package")


def rows(samples: int = 300) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(samples, 4, generator=generator) @ torch.randn(4, 9, generator=generator)


def shard(x: Tensor, rank: int, world: int) -> Tensor:
    """Uneven: the last rank sees nothing, rank 0 more than the others."""
    sizes = [0] * world
    sizes[0] = len(x) - 40 * (world - 2)
    sizes[1 : world - 1] = [40] * (world - 2)
    return x.split(sizes)[rank]


def _work(rank: int, world: int, folder: str, job: Callable[[int, int], Any]) -> None:
    torch.set_num_threads(1)
    try:
        timeout = datetime.timedelta(seconds=20)
        dist.init_process_group(
            "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world, timeout=timeout
        )
        torch.save(job(rank, world), f"{folder}/{rank}.pt")
        dist.destroy_process_group()
    except BaseException:
        Path(folder, f"{rank}.error").write_text(traceback.format_exc())
        raise


def on_ranks(world: int, folder: Path, job: Callable[[int, int], Any]) -> list[Any]:
    mp.start_processes(_work, args=(world, str(folder), job), nprocs=world, start_method="fork")
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(world)]


def _kept(rank: int, world: int) -> tuple[float, float, int, int]:
    metric = TwoNN()
    for part in shard(rows(), rank, world).split(33):
        metric.update(part)
    metric.skipped = metric.skipped + rank
    estimate = metric.estimate()
    return float(metric.estimate().dimension), estimate.dimension, estimate.skipped, int(metric.samples)


@pytest.mark.parametrize("world", [2, 3])
def test_uneven_shards_and_an_empty_rank_give_the_whole(world: int, tmp_path: Path) -> None:
    whole = two_nn_estimate(rows()).dimension
    results = on_ranks(world, tmp_path, _kept)
    assert len({result[1] for result in results}) == 1  # bitwise the same on all ranks
    assert results[0][1] == pytest.approx(whole, rel=1e-9)
    assert results[0][2] == sum(range(world))
    assert [result[3] for result in results] == [len(shard(rows(), rank, world)) for rank in range(world)]


def _shared(rank: int, world: int) -> float:
    x = rows()
    metric = TwoNN(x[:50])
    metric.update(shard(x[50:], rank, world))
    metric.update(torch.zeros(0, 9))
    return float(metric.compute())


@pytest.mark.parametrize("world", [2, 3])
def test_shared_anchors_see_all_ranks(world: int, tmp_path: Path) -> None:
    alone = TwoNN(50)
    alone.update(rows())
    for result in on_ranks(world, tmp_path, _shared):
        assert result == pytest.approx(float(alone.compute()), rel=1e-9)


def _full(rank: int, world: int) -> str:
    metric = TwoNN(10)
    metric.update(rows()[rank * 100 : rank * 100 + 100])
    try:
        metric.estimate()
    except RuntimeError as error:
        return str(error)
    return "no error"


def test_ranks_that_never_met_are_the_same_error_everywhere(tmp_path: Path) -> None:
    messages = on_ranks(2, tmp_path, _full)
    assert messages[0] == messages[1]
    assert "Give all of them the same rows as `anchors`" in messages[0]
