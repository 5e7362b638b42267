"""All tracked layers over one window."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from lightning_saturation.metrics.reduction import all_reduce_moments, is_distributed, wire_device
from lightning_saturation.report import LayerStatistics
from lightning_saturation.tracking.buffer import RowBuffer
from lightning_saturation.tracking.spectra import eigenvalues_over_ranks


class Window:
    """What the layers called ``names`` put out since the last ``reset``."""

    quantity = "saturation"

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._buffers: dict[str, RowBuffer] = {}  # in the order in which layers first ran
        self._seen: dict[str, None] = {}
        self._troubled: set[str] = set()

    @property
    def is_empty(self) -> bool:
        """Whether no layer has put out anything since the last ``reset``, on this rank."""
        return not self._seen

    def add(self, name: str, rows: Tensor) -> None:
        """Take in ``rows`` (samples, features) of layer ``name``; whatever fails is left out, with one warning."""
        try:
            if name not in self._buffers:
                self._buffers[name] = RowBuffer()
            self._buffers[name].add(rows)
            self._seen[name] = None
        except Exception as error:  # a user's training must not end because of a diagnostic
            self.trouble(name, error)

    def trouble(self, name: str, error: Exception) -> None:
        """Warn, once a layer, that some of its outputs are left out."""
        if name not in self._troubled:
            self._troubled.add(name)
            warnings.warn(f"Some outputs of layer {name!r} are left out of its {self.quantity}: {error}", stacklevel=2)

    def statistics(self, *, delta: float, group: Any = None) -> dict[str, LayerStatistics]:
        """Return the statistics of every layer that any rank saw, the same on all ranks; a collective call.

        Layers come in the order in which they run. Raises ``RuntimeError`` on all ranks when they disagree about the
        tracked layers or a layer's width.
        """
        seen = [name for name in self._buffers if name in self._seen]
        unseen = [name for name in self._names if name not in self._seen]
        local = {**{name: self._buffers[name].moments() for name in seen}, **dict.fromkeys(unseen)}
        moments = all_reduce_moments(local, group=group)
        skipped = self._skipped(list(moments), group)
        eigenvalues = eigenvalues_over_ranks(moments, group=group)
        return {
            name: LayerStatistics.from_eigenvalues(
                eigenvalues[name], features=len(m.mean), samples=int(m.samples), skipped=skipped[name], delta=delta
            )
            for name, m in moments.items()
        }

    def reset(self) -> None:
        """Start the next window."""
        self._seen.clear()
        for buffer in self._buffers.values():
            buffer.reset()

    def _skipped(self, names: Sequence[str], group: Any) -> dict[str, int]:
        counts = torch.tensor([self._buffers[name].skipped if name in self._seen else 0 for name in names])
        if is_distributed(group):
            counts = counts.to(wire_device(group))
            dist.all_reduce(counts, group=group)
        return dict(zip(names, counts.tolist(), strict=True))
