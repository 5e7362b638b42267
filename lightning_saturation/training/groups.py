"""The ranks among which data is split, and a line to them of our own."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from weakref import WeakKeyDictionary

import torch.distributed as dist
from lightning.pytorch import Trainer

from lightning_saturation.covariance.ranks import LOCAL

PATIENCE = timedelta(seconds=15)
"""How long ranks wait for each other where a run begins."""

# By Trainer: all ranks as they were when the group was made, and the group.
_GROUPS: WeakKeyDictionary[Trainer, tuple[Any, Any]] = WeakKeyDictionary()


def data_parallel_group(trainer: Trainer) -> Any:
    """Return the process group over which data is split: all ranks, or the data-parallel part of a mesh.

    ``LOCAL`` where there is one rank; the group of our own where :func:`meet` has made one.
    """
    if trainer.world_size == 1:
        return LOCAL
    try:
        mesh = getattr(trainer.strategy, "device_mesh", None)
    except RuntimeError:  # Lightning's answer before the mesh exists
        mesh = None
    if "data_parallel" in (getattr(mesh, "mesh_dim_names", None) or ()):
        return mesh["data_parallel"].get_group()  # type: ignore[index]
    ranks, group = _GROUPS.get(trainer, (None, None))
    return group if ranks is not None and ranks is dist.group.WORLD else None


def meet(trainer: Trainer, name: str) -> None:
    """Find out that all ranks have the callback called ``name``, and make a group of our own; a collective call.

    Lightning broadcasts at every training batch. Ranks with different numbers of batches would answer one of these
    where we ask for rows, and wait for ever. With NCCL a further group would take the GPU's memory, so that there ours
    is everybody's. Raises ``RuntimeError`` where a rank does not come within a quarter of a minute.
    """
    group = data_parallel_group(trainer)
    if group is not None or not dist.is_initialized() or dist.get_backend() != "gloo":
        return
    try:
        dist.monitored_barrier(timeout=PATIENCE)
    except RuntimeError as error:
        raise RuntimeError(
            f"Expected all {trainer.world_size} ranks to have the callback {name!r}, but rank {trainer.global_rank}"
            f" waits for others in vain. Give every rank the same callbacks. {error}"
        ) from error
    _GROUPS[trainer] = dist.group.WORLD, dist.new_group()
