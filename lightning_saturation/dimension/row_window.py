"""Rows of all tracked layers over one window, and the dimensions that they fill."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from lightning_saturation.capture.window import LayerWindow
from lightning_saturation.covariance.ranks import gather, rank_and_world
from lightning_saturation.covariance.reduction import agree
from lightning_saturation.dimension.layer_dimension import DimensionOptions, layer_dimension
from lightning_saturation.dimension.report import LayerDimension
from lightning_saturation.dimension.row_sample import RowSample, Sampled, merge_samples


class RowWindow(LayerWindow):
    """A uniform sample of ``samples`` rows of each of the layers called ``names``, the same samples for all of them.

    Layers whose rows do not fit into the rest of ``max_bytes`` are ``refused``: they are named there and hold nothing.
    ``labels`` are those of the batch that is running, if any.
    """

    quantity = "dimension"

    def __init__(self, names: Sequence[str], *, samples: int, max_bytes: int, seed: int = 0) -> None:
        super().__init__(names)
        self.labels: Tensor | None = None
        self.refused: dict[str, int] = {}
        self._samples, self._bytes, self._spent, self._seed = samples, max_bytes, 0, seed
        self._kept: dict[str, RowSample] = {}

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
            merged = merge_samples(
                self._kept[name].sampled() if name in self.seen else None, self._samples, group=group
            )
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

    def _layer_state(self, name: str) -> dict[str, Any]:
        return self._kept[name].to_state()

    def _load_layer(self, name: str, state: Mapping[str, Any]) -> None:
        if self._admits(name, state["rows"]):
            self._kept[name].load_state(state)

    def _forget(self) -> None:
        for sample in self._kept.values():
            sample.reset()

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
