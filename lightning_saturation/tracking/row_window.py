"""Rows of all tracked layers over one window, and the dimensions that they fill."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch.distributed as dist
from torch import Tensor

from lightning_saturation.metrics.reduction import agree, is_distributed
from lightning_saturation.report import LayerDimension
from lightning_saturation.tracking.layer_dimension import DimensionOptions, layer_dimension
from lightning_saturation.tracking.sample import RowSample, Sampled, merge_samples
from lightning_saturation.tracking.window import Window


class RowWindow(Window):
    """A uniform sample of ``samples`` rows of each of the layers called ``names``, the same samples for all of them.

    Layers whose rows would not fit into ``max_bytes`` any more are ``refused``: they are named there and hold nothing.
    ``labels`` are those of the batch that is running, if any.
    """

    quantity = "dimension"

    def __init__(self, names: Sequence[str], *, samples: int, max_bytes: int, seed: int = 0) -> None:
        super().__init__(names)
        self.labels: Tensor | None = None
        self.refused: dict[str, int] = {}
        self.order: dict[str, None] = {}
        self._samples, self._bytes, self._spent, self._seed = samples, max_bytes, 0, seed
        self._kept: dict[str, RowSample] = {}

    def add(self, name: str, rows: Tensor) -> None:
        """Take in ``rows`` (samples, features) of layer ``name``; whatever fails is left out, with one warning."""
        try:
            if not len(rows) or not self._admits(name, rows):
                return
            labels = self.labels if self.labels is not None and len(self.labels) == len(rows) else None
            self._kept[name].add(rows.detach(), labels)
            self._seen[name] = None
        except Exception as error:  # a user's training must not end because of a diagnostic
            self.trouble(name, error)

    def dimensions(self, options: DimensionOptions, *, group: Any = None) -> dict[str, LayerDimension]:
        """Return the dimensions of every layer that any rank saw, the same on all ranks; a collective call.

        Layers are shared out: each rank solves some of them. Raises ``RuntimeError`` on all ranks when they disagree
        about the tracked layers or a layer's width.
        """
        widths: dict[str, int | None] = {name: self._kept[name].width for name in self.order if name in self._seen}
        widths |= {name: None for name in self._names if name not in widths}
        world, rank = (dist.get_world_size(group), dist.get_rank(group)) if is_distributed(group) else (1, 0)
        solved: dict[str, LayerDimension] = {}
        agreed = agree(widths, group=group)
        for index, name in enumerate(agreed):
            merged = merge_samples(
                self._kept[name].sampled() if name in self._seen else None, self._samples, group=group
            )
            if merged is not None and index % world == rank:
                solved[name] = self._solve(merged, options)
        if world > 1:
            everyone: list[dict[str, LayerDimension]] = [{}] * world
            dist.all_gather_object(everyone, solved, group=group)
            solved = {name: layer for part in everyone for name, layer in part.items()}
        return {name: solved[name] for name in agreed}

    def reset(self) -> None:
        """Start the next window."""
        self._seen.clear()
        for sample in self._kept.values():
            sample.reset()

    def _admits(self, name: str, rows: Tensor) -> bool:
        """Return whether there is room for ``rows``; the first layer that is looked at always has it."""
        self.order[name] = None
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
            return replace(LayerDimension(sample.rows.shape[1], len(sample.rows)), note=f"failed: {error}")
