"""Points with their two nearest distances: how they grow and merge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

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
        if not bool(others.any()):
            return state
        nearest, which = find_two_nearest(state.anchors, rows[others])
        named = torch.where(which < 0, -1, keys[others][which.to(keys.device)])
        return state.closer(nearest.to(state.nearest), named)

    def extended(self, rows: Tensor) -> Anchors:
        """Return the state with ``rows``, of which none is a neighbour yet, as further anchors."""
        anchors = torch.cat([self.anchors, rows]) if len(self.anchors) else rows.clone()
        unseen = self.nearest.new_full((len(rows), 2), torch.inf)
        nothing = self.keys.new_full((len(rows), 2), -1)
        return self._replace(
            anchors=anchors, nearest=torch.cat([self.nearest, unseen]), keys=torch.cat([self.keys, nothing])
        )

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
    # Those that saw rows which they do not keep, so that new anchors could not be measured against them.
    full = [state for state in states if int(state.samples - state.duplicates) > len(state.anchors)]
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
