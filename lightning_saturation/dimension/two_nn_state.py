"""Points with their two nearest distances: how they grow, merge, and travel between ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_saturation.covariance.ranks import broadcast, gather, rank_and_world
from lightning_saturation.dimension.neighbours import merge_nearest, two_nearest


class Anchors(NamedTuple):
    """Rows (anchors, features) and their two smallest distances (anchors, 2) to the rows seen that are no anchors.

    Distances among the anchors are left out: they are known to whoever holds the anchors, and two states that both
    counted them could not be merged. ``samples`` counts all rows, the anchors included.
    """

    anchors: Tensor
    nearest: Tensor
    samples: Tensor

    @property
    def overflown(self) -> bool:
        """Whether rows were seen that are not kept, so that new anchors could not be measured against them."""
        return int(self.samples) > len(self.anchors)

    def moved(self, device: torch.device) -> Anchors:
        """Return the same on ``device``."""
        return Anchors(*(tensor.to(device) for tensor in self))

    def extended(self, rows: Tensor) -> Anchors:
        """Return the same with further anchors, which no row but the other anchors was seen with."""
        unseen = torch.full((len(rows), 2), torch.inf, dtype=torch.float64, device=rows.device)
        anchors = torch.cat([self.anchors, rows]) if len(self.anchors) else rows.clone()
        return self._replace(anchors=anchors, nearest=torch.cat([self.nearest, unseen]))


def merge_anchors(states: Sequence[Anchors], *, shared: bool) -> Anchors:
    """Return what ``states`` saw together, as if one had seen all of it.

    ``shared`` says that all of them have the same anchors. Raises ``RuntimeError`` where the merged distances would not
    be exact: several states that saw more rows than they keep, or shared anchors that differ.
    """
    samples = sum((state.samples for state in states), start=torch.zeros_like(states[0].samples))
    if shared:
        return _merge_shared(states, samples)
    states = [state for state in states if len(state.anchors)] or [states[0]]
    if len(widths := {state.anchors.shape[1] for state in states}) > 1:
        raise RuntimeError(f"Expected rows of the same width everywhere, got {sorted(widths)} features.")
    full = [state for state in states if state.overflown]
    if len(full) > 1:
        raise RuntimeError(
            f"Expected at most one of the merged TwoNN metrics to have seen more rows than its anchors, got {len(full)}"
            f" ({[(int(s.samples), len(s.anchors)) for s in full]} rows and anchors): their anchors never met each"
            " other's rows. Give all of them the same rows as `anchors`, or a number of anchors that holds all rows."
        )
    if not full:
        anchors, nearest = (torch.cat([state[index] for state in states]) for index in range(2))
        return Anchors(anchors, nearest, samples)
    others = torch.cat([state.anchors for state in states if state is not full[0]] or [full[0].anchors[:0]])
    nearest = merge_nearest(full[0].nearest, two_nearest(full[0].anchors, others))
    return Anchors(full[0].anchors, nearest, samples)


def _merge_shared(states: Sequence[Anchors], samples: Tensor) -> Anchors:
    first = states[0]
    nearest = first.nearest
    for state in states[1:]:
        if not torch.equal(state.anchors, first.anchors):
            raise RuntimeError("Expected the same rows as `anchors` in all merged TwoNN metrics, got different ones.")
        nearest = merge_nearest(nearest, state.nearest)
    return Anchors(first.anchors, nearest, samples - (len(states) - 1) * len(first.anchors))


def gather_anchors(state: Anchors, *, group: Any = None) -> list[Anchors]:
    """Return the states of all ranks, in order of rank; a collective call. Shards may be uneven or empty."""
    me, _ = rank_and_world(group)
    home = state.anchors.device
    gathered = []
    heads = gather((tuple(state.anchors.shape), state.anchors.dtype, int(state.samples)), group)
    for rank, (shape, dtype, samples) in enumerate(heads):
        # One broadcast for each rank, not a padded gather: shards are uneven, and nothing is sent for an empty one.
        anchors = state.anchors if rank == me else torch.empty(shape, dtype=dtype, device=home)
        nearest = state.nearest if rank == me else torch.empty(shape[0], 2, dtype=torch.float64, device=home)
        if shape[0]:
            anchors, nearest = broadcast(anchors, rank, group), broadcast(nearest, rank, group)
        gathered.append(Anchors(anchors, nearest, torch.tensor(samples)).moved(home))
    return gathered
