"""A bounded, uniform sample of all rows that pass by, which merges over ranks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_saturation.covariance.ranks import broadcast, gather, is_distributed, rank_and_world, wire_device


class Sampled(NamedTuple):
    """Rows (samples, features), their random keys and their labels (−1 without any)."""

    rows: Tensor
    keys: Tensor
    labels: Tensor


class RowSample:
    """The ``size`` rows with the smallest keys, where every row draws one in passing: a sample without replacement.

    Keys are drawn on the CPU before rows are looked at, so that nothing waits for the device; their order is that of
    the rows, so that the split into batches does not matter, and two samples with one ``seed`` keep the same rows.
    """

    def __init__(self, size: int, *, seed: int = 0) -> None:
        self._size, self._seed = size, seed
        self._generator = torch.Generator()
        self._rows = torch.empty(0, 0)
        with torch.inference_mode(False):  # Lightning validates in it, and training may have to write here
            self._keys = torch.empty(size, dtype=torch.float64)
            self._labels = torch.full((size,), -1)
        self.reset()

    def add(self, rows: Tensor, labels: Tensor | None = None) -> None:
        """Take ``rows`` (samples, features) and their ``labels`` in; raises ``ValueError`` where the width changes."""
        if not len(rows):
            return
        if rows.shape[1] != self.width and not self.filled:  # a window that begins anew may have learned otherwise
            with torch.inference_mode(False):
                self._rows = torch.empty(self._size, rows.shape[1], dtype=rows.dtype, device=rows.device)
        if rows.shape[1] != self._rows.shape[1]:
            raise ValueError(f"Expected rows of {self._rows.shape[1]} features as before, got {rows.shape[1]}.")
        with torch.inference_mode(False):
            drawn = torch.rand(len(rows), dtype=torch.float64, generator=self._generator)
            kept = torch.cat([self._keys, drawn]).topk(self._size, largest=False).indices
            taken = kept[kept >= self._size].sort().values - self._size
            stays = torch.zeros(self._size, dtype=torch.bool)
            stays[kept[kept < self._size]] = True
            free = (~stays).nonzero()[:, 0]  # as many as are taken
            self._keys[free] = drawn[taken]
        if len(taken):
            self._rows[free.to(self._rows.device)] = rows[taken.to(rows.device)].to(self._rows)
            self._labels[free] = -1 if labels is None else labels.cpu()[taken]

    @property
    def filled(self) -> int:
        """How many rows are held."""
        return int(self._keys.isfinite().sum())

    @property
    def width(self) -> int:
        """How many features a row has; 0 before the first."""
        return self._rows.shape[1]

    def sampled(self) -> Sampled:
        """Return what is held, in the order of the keys, which no split changes."""
        order = self._keys.argsort()[: self.filled]
        return Sampled(self._rows[order.to(self._rows.device)], self._keys[order], self._labels[order])

    def to_state(self) -> dict[str, Any]:
        """Return the rows held and where the keys are, for a checkpoint."""
        held = self._keys.isfinite()
        rows = self._rows[held.to(self._rows.device)]
        return {
            "rows": rows.clone(),
            "keys": self._keys[held],
            "labels": self._labels[held],
            "generator": self._generator.get_state(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state`` was written."""
        count = min(len(state["keys"]), self._size)
        self.reset()
        rows = state["rows"][:count]
        with torch.inference_mode(False):
            self._rows = torch.empty(self._size, rows.shape[1], dtype=rows.dtype, device=rows.device)
            self._rows[:count] = rows
            self._keys[:count], self._labels[:count] = state["keys"][:count], state["labels"][:count]
        self._generator.set_state(state["generator"])

    def reset(self) -> None:
        """Forget all rows, and draw the same keys again."""
        self._generator.manual_seed(self._seed)
        self._keys.fill_(torch.inf)  # a slot without a row


def merge_samples(local: Sampled | None, size: int, *, group: Any = None) -> Sampled | None:
    """Return the ``size`` rows with the smallest keys over all ranks, None where no rank has any; a collective call."""
    if not is_distributed(group):
        return local
    home = wire_device(group) if local is None else local.rows.device
    own = None if local is None else (local.rows.shape[1], local.rows.dtype, local.keys, local.labels)
    nothing = (0, torch.float32, torch.empty(0), torch.empty(0))
    heads = [nothing if head is None else head for head in gather(own, group)]
    keys = torch.cat([head[2].double() for head in heads])
    if not len(keys):
        return None
    limit = keys.topk(min(size, len(keys)), largest=False).values.max()
    parts = []
    for rank, (width, dtype, theirs, labels) in enumerate(heads):
        chosen = theirs <= limit
        if not chosen.any():
            continue
        if rank == rank_and_world(group)[0] and local is not None:
            rows = local.rows[chosen.to(home)]
        else:
            rows = torch.empty(int(chosen.sum()), width, dtype=dtype, device=home)
        parts.append(Sampled(broadcast(rows, rank, group), theirs[chosen], labels[chosen]))
    return Sampled(*(torch.cat([part[index] for part in parts]) for index in range(3)))
