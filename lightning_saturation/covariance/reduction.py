"""Moments and sketches over all ranks: one handshake and few fused messages, however many layers there are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from lightning_saturation.covariance.moments import Moments, empty_sums, from_sums
from lightning_saturation.covariance.ranks import (
    all_reduce,
    broadcast,
    gather,
    is_distributed,
    pass_on,
    rank_and_world,
    wire_device,
)
from lightning_saturation.covariance.sketch import Sketch, empty_sketch, merge_sketches

Widths = Mapping[str, int | None]


def agree(widths: Widths, *, group: Any = None) -> dict[str, int]:
    """Return the width of every layer that some rank saw, the same on all ranks, in the order in which layers run.

    ``widths`` names every tracked layer of this rank, those that it saw in the order in which they ran; None stands for
    a layer that it did not see. Ranks that track different layers or saw different widths get the same
    ``RuntimeError`` on all ranks, where a collective over different tensors would hang or merge unrelated layers.
    """
    everyone: list[Widths] = gather(dict(widths), group)
    agreed: dict[str, int] = {}
    for rank, theirs in enumerate(everyone):
        missing, extra = sorted(everyone[0].keys() - theirs.keys()), sorted(theirs.keys() - everyone[0].keys())
        if missing or extra:
            raise RuntimeError(
                f"Expected every rank to track the same layers, but rank {rank} differs from rank 0:"
                f" missing {missing}, additional {extra}. Build the model and choose the layers alike on all ranks."
            )
        for name, width in theirs.items():
            if width is not None and agreed.setdefault(name, width) != width:
                raise RuntimeError(
                    f"Expected layer {name!r} to have the same width on every rank, got {agreed[name]} features on a"
                    f" lower rank and {width} on rank {rank}. Sharded layers cannot be merged; leave them out by name."
                )
    return {name: agreed[name] for name in _common_order(agreed, everyone)}


def _common_order(names: Iterable[str], everyone: Iterable[Widths]) -> list[str]:
    """Return ``names`` so that no rank that saw two of them saw them the other way round.

    A layer that the first rank skipped must not end up behind its output layer. Where ranks contradict each other the
    order of ``names`` stays.
    """
    order: TopologicalSorter[str] = TopologicalSorter(dict.fromkeys(names, ()))
    for theirs in everyone:
        for earlier, later in pairwise(name for name, width in theirs.items() if width is not None):
            order.add(later, earlier)
    try:
        return list(order.static_order())
    except CycleError:
        return list(names)


def all_reduce_moments(
    moments: Mapping[str, Moments | None], *, group: Any = None, widths: Mapping[str, int] | None = None
) -> dict[str, Moments]:
    """Return the moments of every layer over all ranks, bitwise the same on each; a collective call.

    ``moments`` holds the local moments, None for a tracked layer without rows; layers that nobody saw are left out of
    the result. Costs one handshake, unless ranks have agreed on ``widths`` already, and two all-reduces in float64 for
    all layers together: means first, then scatters about the common mean, so that ranks with distant means lose no
    digits.
    """
    if widths is None:
        widths = agree({name: None if m is None else len(m.mean) for name, m in moments.items()}, group=group)
    if not widths or not is_distributed(group):
        return {name: m for name in widths if (m := moments[name]) is not None}
    device = wire_device(group)
    local = {
        name: from_sums(empty_sums(width, device=device)) if (m := moments[name]) is None else m
        for name, width in widths.items()
    }
    parts = [torch.cat([m.samples[None], m.samples * m.mean]).to(device) for m in local.values()]
    firsts = torch.split(all_reduce(torch.cat(parts), group, in_place=True), [1 + width for width in widths.values()])
    common = [(part[0].round().long(), part[1:] / part[0].clamp(min=1)) for part in firsts]
    parts = [_scatter_about(m, mean, device) for m, (_, mean) in zip(local.values(), common, strict=True)]
    scatters = torch.split(
        all_reduce(torch.cat(parts), group, in_place=True), [width * width for width in widths.values()]
    )
    reduced = {}
    for (name, own), (samples, mean), scatter in zip(local.items(), common, scatters, strict=True):
        home = own.mean.device
        reduced[name] = Moments(samples.to(home), mean.to(home), scatter.view(own.scatter.shape).to(home))
    return reduced


def _scatter_about(moments: Moments, mean: Tensor, device: torch.device) -> Tensor:
    offset = moments.mean.to(device) - mean
    return torch.addr(moments.scatter.to(device), offset, offset * moments.samples.to(device)).flatten()


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
