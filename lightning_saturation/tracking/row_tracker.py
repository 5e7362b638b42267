"""A model's layers, of which rows are kept."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from lightning_saturation.functional.pooling import Pooling
from lightning_saturation.report.dimension import INPUT
from lightning_saturation.tracking.row_window import RowWindow
from lightning_saturation.tracking.tracker import LayerTracker


class RowTracker(LayerTracker):
    """A :class:`LayerTracker` with one :class:`RowWindow` per stage, in ``row_windows``."""

    views = False

    def __init__(
        self,
        model: nn.Module,
        *,
        stages: Sequence[str],
        layers: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
        pooling: Pooling = "flatten",
        samples: int,
        max_bytes: int,
        seed: int = 0,
    ) -> None:
        super().__init__(model, stages=(), layers=layers, exclude=exclude, pooling=pooling)
        self.row_windows = {
            stage: RowWindow((INPUT, *self.names), samples=samples, max_bytes=max_bytes, seed=seed) for stage in stages
        }
        self.windows = {**self.row_windows}
