"""Sketches over all ranks: a tree of merges, then one broadcast."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_saturation.covariance.ranks import broadcast, is_distributed, pass_on, rank_and_world, wire_device
from lightning_saturation.covariance.sketch import Sketch, empty_sketch, merge_sketches


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
    rank, world = rank_and_world(group)
    device = wire_device(group)
    packed = _pack(local, device)
    reach = 1
    while reach < world:
        place = rank % (2 * reach)
        gives, takes = place == reach, place == 0 and rank + reach < world
        theirs = pass_on(packed, group, to=rank - reach if gives else None, source=rank + reach if takes else None)
        if theirs is not None:
            mine, other = _unpack(packed, local), _unpack(theirs, local)
            packed = _pack({name: merge_sketches(mine[name], other[name]) for name in widths}, device)
        reach *= 2
    merged = _unpack(broadcast(packed, 0, group), local)
    return {name: Sketch(*(part.to(local[name].rows.device) for part in merged[name])) for name in widths}


def _pack(sketches: Mapping[str, Sketch], device: torch.device) -> Tensor:
    """Return all sketches as one float64 vector: a message has a latency, whatever its size."""
    parts = [part.double().flatten().to(device) for sketch in sketches.values() for part in sketch]
    return torch.cat(parts)


def _unpack(packed: Tensor, like: Mapping[str, Sketch]) -> dict[str, Sketch]:
    """Return the sketches in ``packed``, of the shapes that those in ``like`` have."""
    parts = iter(torch.split(packed, [part.numel() for sketch in like.values() for part in sketch]))
    return {
        name: Sketch(*(next(parts).view(part.shape).to(part.dtype) for part in sketch)) for name, sketch in like.items()
    }
