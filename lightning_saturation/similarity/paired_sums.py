"""Sums over many pairs of layers at once, each layer's own sums kept once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_saturation.covariance.ranks import all_reduce, is_distributed
from lightning_saturation.similarity.pairs import PairMoments, move_lengths, pair_of_scatters
from lightning_saturation.similarity.views import Key

Pair = tuple[Key, Key]

# Below so many rows, updating the sums is bound by memory and costs more than the arithmetic.
FLUSH_ROWS = 512


class PairedSums:
    """Shifted sums of every key's views and of every pair's products, float64 or complex128.

    ``centres`` are fixed numbers close to the means, the same on all ranks, so that sums over batches and ranks simply
    add up and lose no digits. With ``lengths``, squared lengths ride along as one more feature, the last.
    """

    def __init__(self, pairs: Sequence[Pair], centres: Mapping[Key, Tensor], *, lengths: bool = False) -> None:
        self._pairs, self._centres, self._lengths = list(pairs), centres, lengths
        keys = dict.fromkeys(key for pair in pairs for key in pair)
        more = int(lengths)
        with torch.inference_mode(False):
            self._counts = dict.fromkeys(keys, 0)
            self._totals = {key: _zeros(centres[key], more) for key in keys}
            self._scatters = {key: _zeros(centres[key], more, centres[key].shape[-1] + more) for key in keys}
            self._crosses = {pair: _zeros(centres[pair[0]], more, centres[pair[1]].shape[-1] + more) for pair in pairs}
        self._waiting: list[Mapping[Key, Tensor]] = []
        self._waiting_rows = 0

    @property
    def keys(self) -> list[Key]:
        """The keys whose views ``add`` wants."""
        return list(self._counts)

    def add(self, views: Mapping[Key, Tensor]) -> None:
        """Add one batch's view (frequencies, samples, features) of every key."""
        self._waiting.append(views)
        self._waiting_rows += max((view.shape[0] * view.shape[1] for view in views.values()), default=0)
        if self._waiting_rows >= FLUSH_ROWS:
            self.flush()

    def flush(self) -> None:
        """Add what still waits."""
        waiting, self._waiting, self._waiting_rows = self._waiting, [], 0
        if not waiting:
            return
        shifted = {key: self._shifted(torch.cat([views[key] for views in waiting], 1), key) for key in self._counts}
        for key, rows in shifted.items():
            self._counts[key] += rows.shape[1]
            self._totals[key] += rows.sum(1)
            self._scatters[key].baddbmm_(rows.mT, rows.conj())
        for (left, right), cross in self._crosses.items():
            cross.baddbmm_(shifted[left].mT, shifted[right].conj())

    def all_reduce(self, group: Any) -> None:
        """Make the sums those over all ranks; a collective call, one all-reduce for the small sums and one per key."""
        self.flush()
        if not is_distributed(group):
            return
        counts = all_reduce(torch.tensor(list(self._counts.values()), dtype=torch.int64), group)
        self._counts = dict(zip(self._counts, counts.tolist(), strict=True))
        for sums in (*self._totals.values(), *self._scatters.values(), *self._crosses.values()):
            sums.copy_(all_reduce(sums, group))

    def samples(self, key: Key) -> int:
        """Return how many samples were added for ``key``."""
        return self._counts[key]

    def scatter(self, key: Key) -> Tensor:
        """Return the centred scatter (frequencies, features, features) of ``key``."""
        return self._centred(self._scatters[key], key, key)

    def cross(self, pair: Pair) -> Tensor:
        """Return the centred cross scatter (frequencies, features, features) of ``pair``."""
        return self._centred(self._crosses[pair], *pair)

    def moments(self, pair: Pair) -> PairMoments:
        """Return the moments of a ``pair`` of rows."""
        samples = torch.tensor(self._counts[pair[0]])
        xx, yy, xy = self.scatter(pair[0])[0], self.scatter(pair[1])[0], self.cross(pair)[0]
        if not self._lengths:
            return PairMoments(samples, xx, yy, xy)
        x, y = (-self._mean(key)[0, :-1] for key in pair)
        return pair_of_scatters(samples, move_lengths(xx, x, x), move_lengths(yy, y, y), move_lengths(xy, x, y))

    def _shifted(self, view: Tensor, key: Key) -> Tensor:
        rows = view - self._centres[key][:, None]
        return torch.cat([rows, rows.square().sum(-1, keepdim=True)], dim=-1) if self._lengths else rows

    def _mean(self, key: Key) -> Tensor:
        return self._totals[key] / max(self._counts[key], 1)

    def _centred(self, sums: Tensor, left: Key, right: Key) -> Tensor:
        return sums - self._totals[left][..., None] * self._mean(right).conj()[..., None, :]


def _zeros(centre: Tensor, more: int, *columns: int) -> Tensor:
    return torch.zeros(*centre.shape[:-1], centre.shape[-1] + more, *columns, dtype=centre.dtype, device=centre.device)
