"""Points with their two nearest distances: how they grow, merge, and travel between ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_saturation.covariance.ranks import broadcast, gather, rank_and_world
from lightning_saturation.dimension.copies import first_of_copies, row_keys
from lightning_saturation.dimension.neighbours import find_two_nearest


class Anchors(NamedTuple):
    """Different rows (anchors, features) and their two smallest distances (anchors, 2) to other rows, not anchors.

    ``keys`` (anchors, 2) say which rows those are, so that none is a neighbour twice when states meet; no key is −1
    where the distance is infinite. Distances among the anchors are left out: they are known to whoever holds the
    anchors, and two states that both counted them could not be merged. ``samples`` counts all rows, the anchors
    included, and ``duplicates`` those among them that were seen to be copies of an anchor, of this or a merged state.
    """

    anchors: Tensor
    nearest: Tensor
    keys: Tensor
    samples: Tensor
    duplicates: Tensor

    @property
    def overflown(self) -> bool:
        """Whether rows were seen that are not kept, so that new anchors could not be measured against them."""
        return int(self.samples - self.duplicates) > len(self.anchors)

    def moved(self, device: torch.device) -> Anchors:
        """Return the same on ``device``."""
        return Anchors(*(tensor.to(device) for tensor in self))

    def seeing(self, rows: Tensor, *, capacity: int) -> Anchors:
        """Return the state after further ``rows``, the first different ones of which become anchors while they fit.

        Copies of anchors are counted and left out, copies of other rows left out.
        """
        if not len(rows):
            return self
        keys = row_keys(rows)
        known = (
            torch.isin(keys, row_keys(self.anchors)) if len(self.anchors) else torch.zeros_like(keys, dtype=torch.bool)
        )
        new = ~known & first_of_copies(keys)
        room = max(0, capacity - len(self.anchors))
        kept = new & (new.cumsum(0) <= room)
        copied = known | torch.isin(keys, keys[kept]) & ~kept
        state = self._replace(samples=self.samples + len(rows), duplicates=self.duplicates + copied.sum())
        if bool(kept.any()):
            state = state.extended(rows[kept])
        others = new & ~kept
        return state.meeting(rows[others], keys[others])

    def extended(self, rows: Tensor) -> Anchors:
        """Return the state with ``rows``, of which none is a neighbour yet, as further anchors."""
        anchors = torch.cat([self.anchors, rows]) if len(self.anchors) else rows.clone()
        unseen = self.nearest.new_full((len(rows), 2), torch.inf)
        nothing = self.keys.new_full((len(rows), 2), -1)
        return self._replace(
            anchors=anchors, nearest=torch.cat([self.nearest, unseen]), keys=torch.cat([self.keys, nothing])
        )

    def meeting(self, rows: Tensor, keys: Tensor) -> Anchors:
        """Return the state after different ``rows`` that are no anchors."""
        if not len(rows):
            return self
        nearest, which = find_two_nearest(self.anchors, rows)
        return self.closer(nearest.to(self.nearest), torch.where(which < 0, -1, keys[which.to(keys.device)]))

    def closer(self, nearest: Tensor, keys: Tensor) -> Anchors:
        """Return the state with the two nearest of its own and of others' neighbours, a row among both only once."""
        both, names = torch.cat([self.nearest, nearest], dim=1), torch.cat([self.keys, keys], dim=1)
        again = (names[:, 2:, None] == names[:, None, :2]).any(2)
        both[:, 2:].masked_fill_(again, torch.inf)
        smallest = both.topk(2, dim=1, largest=False)
        return self._replace(nearest=smallest.values, keys=names.gather(1, smallest.indices))


def merge_anchors(states: Sequence[Anchors], *, shared: bool) -> Anchors:
    """Return what ``states`` saw together, as if one had seen all of it.

    ``shared`` says that all of them have the same anchors. Raises ``RuntimeError`` where the merged distances would not
    be exact: several states that saw more rows than they keep, or shared anchors that differ.
    """
    if shared:
        return _merge_shared(states)
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
    first = full[0] if full else states[0]
    others = [state for state in states if state is not first]
    merged = first
    for state in others:
        room = len(first.anchors) if full else len(merged.anchors) + len(state.anchors)
        merged = merged.seeing(state.anchors, capacity=room)
        copied = int(state.samples) - len(state.anchors)  # all of them, as this state holds what it saw
        merged = merged._replace(samples=merged.samples + copied, duplicates=merged.duplicates + copied)
    return merged


def _merge_shared(states: Sequence[Anchors]) -> Anchors:
    merged = states[0]
    for state in states[1:]:
        if not torch.equal(state.anchors, merged.anchors):
            raise RuntimeError("Expected the same rows as `anchors` in all merged TwoNN metrics, got different ones.")
        merged = merged.closer(state.nearest, state.keys)._replace(
            samples=merged.samples + state.samples - len(state.anchors), duplicates=merged.duplicates + state.duplicates
        )
    return merged


def gather_anchors(state: Anchors, *, group: Any = None) -> list[Anchors]:
    """Return the states of all ranks, in order of rank; a collective call. Shards may be uneven or empty."""
    me, _ = rank_and_world(group)
    home = state.anchors.device
    gathered = []
    heads = gather((tuple(state.anchors.shape), state.anchors.dtype, int(state.samples), int(state.duplicates)), group)
    for rank, (shape, dtype, samples, duplicates) in enumerate(heads):
        # One broadcast for each rank, not a padded gather: shards are uneven, and nothing is sent for an empty one.
        anchors = state.anchors if rank == me else torch.empty(shape, dtype=dtype, device=home)
        nearest = state.nearest if rank == me else torch.empty(shape[0], 2, dtype=torch.float64, device=home)
        keys = state.keys if rank == me else torch.empty(shape[0], 2, dtype=torch.int64, device=home)
        if shape[0]:
            anchors, nearest, keys = (broadcast(part, rank, group) for part in (anchors, nearest, keys))
        counts = torch.tensor(samples), torch.tensor(duplicates)
        gathered.append(Anchors(anchors, nearest, keys, *counts).moved(home))
    return gathered
