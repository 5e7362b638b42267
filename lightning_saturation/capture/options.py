"""What all instruments let a user choose: which layers they watch, and how an output becomes rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from lightning_saturation.arguments import check_patterns
from lightning_saturation.capture.masks import Mask, check_mask
from lightning_saturation.capture.pooling import Pooling, check_pooling
from lightning_saturation.capture.select import select_layers


@dataclass(frozen=True)
class CaptureOptions:
    """``layers`` and ``exclude`` of :func:`select_layers`, ``pooling`` (None for outputs as they come) and ``mask``.

    Raises ``TypeError`` or ``ValueError`` for what is none of these, whatever the model.
    """

    layers: Sequence[str] | None = None
    exclude: Sequence[str] = ()
    pooling: Pooling | None = "mean"
    mask: Mask = None

    def __post_init__(self) -> None:
        check_patterns("layers", self.layers)
        check_patterns("exclude", self.exclude, optional=False)
        if self.pooling is not None:
            check_pooling(self.pooling)
        check_mask(self.mask, self.pooling)

    def select(self, model: nn.Module) -> dict[str, nn.Module]:
        """Return the layers of ``model`` to watch, by name."""
        return select_layers(model, self.layers, self.exclude)
