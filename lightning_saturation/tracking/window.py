"""All tracked layers over one window."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_saturation.functional.moments import Moments
from lightning_saturation.functional.sketch import sketch_size
from lightning_saturation.metrics.ranks import all_reduce
from lightning_saturation.metrics.reduction import agree, all_reduce_moments
from lightning_saturation.metrics.sketch_reduction import merge_over_ranks
from lightning_saturation.report import LayerStatistics
from lightning_saturation.tracking.accumulation import Accumulation
from lightning_saturation.tracking.buffer import RowBuffer
from lightning_saturation.tracking.spectra import eigenvalues_over_ranks


class Window:
    """What the layers called ``names`` put out since the last ``reset``, kept as ``accumulation`` says."""

    quantity = "saturation"

    def __init__(self, names: Sequence[str], accumulation: Accumulation = Accumulation()) -> None:  # noqa: B008
        self._names = tuple(names)
        self._accumulation = accumulation
        self.batches: int | None = None
        """How many batches the window will have, where that is known: then a budget is spent evenly from the start."""
        self._buffers: dict[str, RowBuffer] = {}
        self._order: list[str] = []  # in which layers run
        self._last: str | None = None  # that ran in this batch
        self._seen: dict[str, None] = {}
        self._troubled: set[str] = set()

    @property
    def is_empty(self) -> bool:
        """Whether no layer has put out anything since the last ``reset``, on this rank."""
        return not self._seen

    def begin_batch(self) -> None:
        """Note that what comes next runs at the beginning of the model again."""
        self._last = None

    def add(self, name: str, rows: Tensor) -> None:
        """Take in ``rows`` (…, features) of layer ``name``; whatever fails is left out, with one warning."""
        try:
            if name not in self._buffers:
                self._buffers[name] = RowBuffer(self._accumulation)
                # Behind the layer that ran before it, not at the end: an earlier batch may have skipped this layer.
                self._order.insert(0 if self._last is None else self._order.index(self._last) + 1, name)
            self._last = name
            self._buffers[name].add(rows, batches=self.batches)
            if rows.shape[:-1].numel():
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
        seen = [name for name in self._order if name in self._seen]
        unseen = [name for name in self._names if name not in self._seen]
        widths = agree({**{name: self._buffers[name].features for name in seen}, **dict.fromkeys(unseen)}, group=group)
        wide = {name: width for name, width in widths.items() if self._accumulation.sketches(width)}
        exact = {name: width for name, width in widths.items() if name not in wide}
        local = {name: self._buffers[name] if name in self._seen else None for name in widths}
        moments = all_reduce_moments(
            {name: b.moments() if (b := local[name]) else None for name in exact}, group=group, widths=exact
        )
        sizes = {name: sketch_size(width) for name, width in wide.items()}
        sketches = merge_over_ranks(
            {name: b.sketch() if (b := local[name]) else None for name in wide}, wide, sizes, group=group
        )
        counts = self._counts(list(widths), group)
        moments = {name: _per_row(m, counts[name].samples) for name, m in moments.items()}
        eigenvalues = eigenvalues_over_ranks(moments, group=group)
        return {
            name: LayerStatistics.from_eigenvalues(
                eigenvalues[name], features=width, **counts[name]._asdict(), delta=delta
            )
            if name in exact
            else LayerStatistics.from_sketch(sketches[name], *counts[name], delta=delta)
            for name, width in widths.items()
        }

    def reset(self) -> None:
        """Start the next window."""
        self._seen.clear()
        for buffer in self._buffers.values():
            buffer.reset()

    def _counts(self, names: Sequence[str], group: Any) -> dict[str, _Counts]:
        """Return, by layer, how many rows were taken and how many skipped over all ranks."""
        counts = torch.zeros(len(names), 2, dtype=torch.int64)
        for index, name in enumerate(names):
            if name in self._seen:
                counts[index] = torch.tensor([self._buffers[name].taken, self._buffers[name].skipped])
        counts = all_reduce(counts, group)
        return {name: _Counts(*pair) for name, pair in zip(names, counts.tolist(), strict=True)}


class _Counts(NamedTuple):
    samples: int
    skipped: int


def _per_row(moments: Moments, taken: int) -> Moments:
    """Return ``moments`` as those of ``taken`` rows: under a budget each row was counted for all that it stands for."""
    if int(moments.samples) == taken:
        return moments
    share = taken / max(int(moments.samples), 1)
    return Moments(torch.full_like(moments.samples, taken), moments.mean, moments.scatter * share)
