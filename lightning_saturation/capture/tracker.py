"""A model's layers, watched over several windows at once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from torch import nn

from lightning_saturation.capture.capture import Capture
from lightning_saturation.capture.pooling import Pooling
from lightning_saturation.capture.window import LayerWindow

Window = TypeVar("Window", bound=LayerWindow)


class LayerTracker(Generic[Window]):
    """Hooks on the layers of ``model`` and one window per stage, made by ``make_window`` from the layers' names.

    Knows no Trainer. Only between ``record(stage)`` and ``record(None)`` outputs are counted, into that stage's window.
    ``views`` are those of :class:`Capture`.
    """

    def __init__(
        self,
        model: nn.Module,
        make_window: Callable[[tuple[str, ...]], Window],
        *,
        stages: Sequence[str],
        layers: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
        pooling: Pooling = "mean",
        views: bool = False,
    ) -> None:
        self._capture = Capture(
            model, None, layers=layers, exclude=exclude, pooling=pooling, trouble=self._trouble, views=views
        )
        self._recording: str | None = None
        self._warned: set[str] = set()
        self.names = self._capture.names
        self.windows: dict[str, Window] = {stage: make_window(self.names) for stage in stages}

    def attach(self) -> None:
        """Put the hooks onto the model."""
        self._capture.attach()

    def detach(self) -> None:
        """Remove the hooks."""
        self.record(None)
        self._capture.detach()

    def record(self, stage: str | None) -> None:
        """Count the outputs of a batch into the window of ``stage``, or nowhere."""
        self._recording = stage
        if stage is not None:
            self.windows[stage].begin_batch()
        self._capture.record = None if stage is None else self.windows[stage].add

    def warn_about_missing(self, seen: Sequence[str]) -> None:
        """Warn, once a layer, about tracked layers that are not among those ``seen``."""
        missing = [name for name in self.names if name not in seen and name not in self._warned]
        self._warned.update(missing)
        sharded = [name for name in missing if name in self._capture.sharded]
        if sharded:
            warnings.warn(
                f"No saturation for {sharded}: their outputs are narrower than the layers say, as with tensor"
                " parallelism, and a shard's saturation would be a wrong number.",
                stacklevel=2,
            )
        unseen = [name for name in missing if name not in sharded]
        if unseen:
            warnings.warn(
                f"No saturation for {unseen}: these layers were never run in the window, or run where hooks do not"
                " fire (a function compiled around them, a fused kernel). Take them out with `exclude`.",
                stacklevel=2,
            )

    def _trouble(self, name: str, error: Exception) -> None:
        if self._recording is not None:
            self.windows[self._recording].trouble(name, error)
