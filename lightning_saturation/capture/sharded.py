"""Layers whose features are spread over the ranks of a tensor-parallel mesh."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def gather_features(module: nn.Module, output: Tensor, *, dim: int, features: int) -> Tensor | None:
    """Return the whole of an ``output`` of which this rank holds a slice along ``dim``, or None where it cannot be had.

    The slices are those of ``module``'s weight, which tensor parallelism has cut along its outputs; what is gathered is
    ``features`` wide, the same on all ranks of that mesh. A collective call among them: they run the same layers in the
    same order.
    """
    group = _feature_group(module, output.shape[dim], features)
    if group is None:
        return None
    # Slices may differ by one where the width does not divide evenly; the mesh cuts it like `torch.chunk`.
    widths = [len(chunk) for chunk in torch.chunk(torch.empty(features), dist.get_world_size(group))]
    if sum(widths) != features or widths[dist.get_rank(group)] != output.shape[dim]:
        return None
    own = output.new_zeros(widths[0], *output.movedim(dim, 0).shape[1:])  # the first slice is the widest
    own[: output.shape[dim]] = output.movedim(dim, 0)
    slices = [torch.empty_like(own) for _ in widths]
    dist.all_gather(slices, own, group=group)
    return torch.cat([part[:width] for part, width in zip(slices, widths, strict=True)]).movedim(0, dim)


def _feature_group(module: nn.Module, width: int, features: int) -> Any:
    """Return the process group over which the outputs of ``module`` are cut, or None."""
    weight = getattr(module, "weight", None)
    mesh, placements = getattr(weight, "device_mesh", None), getattr(weight, "placements", ())
    if mesh is None:
        return None
    for dimension, placement in enumerate(placements):
        # Linear and convolution weights have their outputs first. FSDP cuts there too, but gathers before the forward.
        if placement.is_shard(0) and -(-features // mesh.size(dimension)) >= width:
            return mesh.get_group(dimension)
    return None
