"""The ranks among which data is split, and whether they go together."""

from __future__ import annotations

import warnings
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from lightning.pytorch import Trainer

from lightning_saturation.covariance.ranks import LOCAL, gather

PATIENCE = timedelta(seconds=15)
"""How long ranks wait for each other where a run begins."""


def data_parallel_group(trainer: Trainer) -> Any:
    """Return the process group over which data is split: None for all ranks, or the data-parallel part of a mesh.

    ``LOCAL`` where there is one rank.
    """
    if trainer.world_size == 1:
        return LOCAL
    try:
        mesh: Any = getattr(trainer.strategy, "device_mesh", None)
    except RuntimeError:  # Lightning's answer before the mesh exists
        return None
    if "data_parallel" in (getattr(mesh, "mesh_dim_names", None) or ()):
        return mesh["data_parallel"].get_group()
    return None


def meet(trainer: Trainer, name: str) -> Any:
    """Return the group of ranks, all of which have the callback called ``name``; a collective call.

    Raises ``RuntimeError`` where a rank does not come within 15 seconds, as far as the backend can tell (gloo's can).
    """
    group = data_parallel_group(trainer)
    if group is None and dist.is_initialized() and dist.get_backend() == "gloo":
        try:
            dist.monitored_barrier(timeout=PATIENCE)
        except RuntimeError as error:
            raise RuntimeError(
                f"Expected all {trainer.world_size} ranks to have the callback {name!r}, but rank {trainer.global_rank}"
                f" waits for others in vain. Give every rank the same callbacks. {str(error).partition(chr(10))[0]}"
            ) from error
    return group


def training_group(trainer: Trainer, owner: str) -> Any:
    """Return the group of ranks that can wait for each other while they train; a collective call.

    That is ``LOCAL`` where they have different numbers of batches: Lightning broadcasts at every batch, and the rank
    that has more of them waits there for one that would wait for it here. ``owner`` says so in a warning.
    """
    group = data_parallel_group(trainer)
    batches = gather(trainer.num_training_batches, group)
    if len(set(batches)) == 1:
        return group
    warnings.warn(
        f"{owner} sees on each rank that rank's rows only, because the ranks have different numbers of batches,"
        f" {batches}: those that end an epoch earlier must not wait. Give all ranks the same number.",
        stacklevel=2,
    )
    return LOCAL
