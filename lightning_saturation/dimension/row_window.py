"""A bounded, uniform sample of the rows of all tracked layers over one window, and the dimensions that they fill."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_saturation.capture.window import LayerWindow
from lightning_saturation.covariance.ranks import gather, gather_tensors, is_distributed, rank_and_world, wire_device
from lightning_saturation.covariance.reduction import agree
from lightning_saturation.dimension.layer_dimension import DimensionOptions, layer_dimension
from lightning_saturation.dimension.report import LayerDimension


class RowWindow(LayerWindow):
    """A uniform sample of ``samples`` rows of each of the layers called ``names``, the same samples for all of them.

    Layers whose rows do not fit into the rest of ``max_bytes`` are ``refused``: they are named there and hold nothing.
    ``labels`` are those of the batch that is running, if any.
    """

    quantity = "dimension"
    _kept: dict[str, RowSample]

    def __init__(self, names: Sequence[str], *, samples: int, max_bytes: int, seed: int = 0) -> None:
        super().__init__(names)
        self.labels: Tensor | None = None
        self.refused: dict[str, int] = {}
        self._samples, self._bytes, self._spent, self._seed = samples, max_bytes, 0, seed

    def dimensions(self, options: DimensionOptions, *, group: Any = None) -> dict[str, LayerDimension]:
        """Return the dimensions of every layer that any rank saw, the same on all ranks; a collective call.

        Layers are shared out: each rank solves some of them. Raises ``RuntimeError`` on all ranks when they disagree
        about the tracked layers or a layer's width.
        """
        widths: dict[str, int | None] = {name: self._kept[name].width for name in self.order if name in self.seen}
        widths |= {name: None for name in self.names if name not in widths}
        rank, world = rank_and_world(group)
        solved: dict[str, LayerDimension] = {}
        agreed = agree(widths, group=group)
        for index, name in enumerate(agreed):
            own = self._kept[name].sampled() if name in self.seen else None
            merged = merge_samples(own, self._samples, group=group)
            if merged is not None and index % world == rank:
                solved[name] = self._solve(merged, options)
        everyone = {name: layer for part in gather(solved, group) for name, layer in part.items()}
        return {name: everyone[name] for name in agreed}

    def _keep(self, name: str, rows: Tensor) -> bool:
        if not len(rows) or not self._admits(name, rows):
            return False
        labels = self.labels if self.labels is not None and len(self.labels) == len(rows) else None
        self._kept[name].add(rows.detach(), labels)
        return True

    def _load_layer(self, name: str, state: Mapping[str, Any]) -> None:
        if self._admits(name, state["rows"]):
            self._kept[name].load_state(state)

    def _admits(self, name: str, rows: Tensor) -> bool:
        """Return whether there is room for ``rows``; the first layer that is looked at always has it."""
        if name in self._kept:
            return True
        if name not in self.refused:
            cost = self._samples * rows.shape[1] * rows.element_size()
            if self._kept and self._spent + cost > self._bytes:
                self.refused[name] = cost
            else:
                self._spent += cost
                self._kept[name] = RowSample(self._samples, seed=self._seed)
        return name in self._kept

    @staticmethod
    def _solve(sample: Sampled, options: DimensionOptions) -> LayerDimension:
        try:
            return layer_dimension(sample.rows, sample.labels, options)
        except Exception as error:  # one rank alone must not leave the others waiting, nor a layer end a training
            warnings.warn(f"A layer has no dimension: {error}", stacklevel=2)
            return LayerDimension(sample.rows.shape[1], len(sample.rows), note=f"failed: {error}")


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
    nothing = torch.empty(0, device=wire_device(group)), torch.empty(0, dtype=torch.float64), torch.empty(0).long()
    own = Sampled(*nothing) if local is None else local
    keys = torch.cat(gather(own.keys, group))
    if not len(keys):
        return None
    chosen = own.keys <= keys.topk(min(size, len(keys)), largest=False).values.max()
    own = Sampled(own.rows[chosen.to(own.rows.device)], own.keys[chosen], own.labels[chosen])
    parts = [part for part in gather_tensors(own, group) if len(part[1])]
    return Sampled(*map(torch.cat, zip(*parts, strict=True)))
