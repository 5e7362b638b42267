"""Moments over all ranks: one handshake and two fused all-reduces, however many layers there are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from lightning_saturation.covariance.moments import Moments, empty_sums, from_sums
from lightning_saturation.covariance.ranks import all_reduce, gather, is_distributed, wire_device

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
        _check_same_layers(everyone[0], theirs, rank)
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


def _check_same_layers(first: Widths, theirs: Widths, rank: int) -> None:
    missing, extra = sorted(first.keys() - theirs.keys()), sorted(theirs.keys() - first.keys())
    if missing or extra:
        raise RuntimeError(
            f"Expected every rank to track the same layers, but rank {rank} differs from rank 0:"
            f" missing {missing}, additional {extra}. Build the model and choose the layers alike on all ranks."
        )


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
    if not is_distributed(group):
        return {name: m for name in widths if (m := moments[name]) is not None}
    device = wire_device(group)
    local = {
        name: from_sums(empty_sums(width, device=device)) if (m := moments[name]) is None else m
        for name, width in widths.items()
    }
    parts = [torch.cat([m.samples[None], m.samples * m.mean]).to(device) for m in local.values()]
    firsts = torch.split(_sum_over_ranks(parts, group), [1 + width for width in widths.values()])
    common = [(part[0].round().long(), part[1:] / part[0].clamp(min=1)) for part in firsts]
    parts = [_scatter_about(m, mean, device) for m, (_, mean) in zip(local.values(), common, strict=True)]
    scatters = torch.split(_sum_over_ranks(parts, group), [width * width for width in widths.values()])
    reduced = {}
    for (name, own), (samples, mean), scatter in zip(local.items(), common, scatters, strict=True):
        home = own.mean.device
        reduced[name] = Moments(samples.to(home), mean.to(home), scatter.view(own.scatter.shape).to(home))
    return reduced


def _scatter_about(moments: Moments, mean: Tensor, device: torch.device) -> Tensor:
    offset = moments.mean.to(device) - mean
    return torch.addr(moments.scatter.to(device), offset, offset * moments.samples.to(device)).flatten()


def _sum_over_ranks(parts: Sequence[Tensor], group: Any) -> Tensor:
    if not parts:
        return torch.zeros(0, dtype=torch.float64)
    return all_reduce(torch.cat(list(parts)), group, in_place=True)
