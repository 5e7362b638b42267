"""Sketches over all ranks: a tree of merges, then one broadcast."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from lightning_saturation.functional.sketch import Sketch, empty_sketch, merge_sketches
from lightning_saturation.metrics.reduction import is_distributed, wire_device


def merge_over_ranks(
    sketches: Mapping[str, Sketch | None], widths: Mapping[str, int], sizes: Mapping[str, int], *, group: Any = None
) -> dict[str, Sketch]:
    """Return the sketch of every layer over all ranks, bitwise the same on each; a collective call.

    ``sketches`` holds the local ones, None where a rank has no rows; ``widths`` and ``sizes``, the same on all ranks,
    say how wide each layer is and how many directions are kept. In round r every rank that is an odd multiple of 2^r
    hands its sketches to the one 2^r below: log2(ranks) rounds, in which no rank holds more than two sets of sketches,
    where gathering them would hold all.
    """
    local = {
        name: own if (own := sketches[name]) is not None else empty_sketch(width, size=sizes[name])
        for name, width in widths.items()
    }
    if not local or not is_distributed(group):
        return local
    rank, world, device = dist.get_rank(group), dist.get_world_size(group), wire_device(group)
    packed = _pack(local, device)
    reach = 1
    while reach < world:
        if rank % (2 * reach) == reach:
            dist.send(packed, _global_rank(rank - reach, group), group=group)
            break
        if rank + reach < world:
            theirs = torch.empty_like(packed)
            dist.recv(theirs, _global_rank(rank + reach, group), group=group)
            mine, other = _unpack(packed, widths, sizes), _unpack(theirs, widths, sizes)
            packed = _pack({name: merge_sketches(mine[name], other[name]) for name in widths}, device)
        reach *= 2
    dist.broadcast(packed, _global_rank(0, group), group=group)
    merged = _unpack(packed, widths, sizes)
    return {name: Sketch(*(part.to(local[name].rows.device) for part in merged[name])) for name in widths}


def _pack(sketches: Mapping[str, Sketch], device: torch.device) -> Tensor:
    """Return all sketches as one float64 vector: a message has a latency, whatever its size."""
    parts = [part.double().flatten().to(device) for sketch in sketches.values() for part in sketch]
    return torch.cat(parts)


def _unpack(packed: Tensor, widths: Mapping[str, int], sizes: Mapping[str, int]) -> dict[str, Sketch]:
    lengths = [n for name, width in widths.items() for n in (1, width, sizes[name] * width, 1, 1, 1)]
    parts = iter(torch.split(packed, lengths))
    unpacked = {}
    for name, width in widths.items():
        samples, mean, rows, trace, shrinkage, rounding = (next(parts) for _ in Sketch._fields)
        unpacked[name] = Sketch(
            samples[0].round().long(), mean, rows.view(sizes[name], width), trace[0], shrinkage[0], rounding[0]
        )
    return unpacked


def _global_rank(rank: int, group: Any) -> int:
    return rank if group is None else dist.get_global_rank(group, rank)
