"""A model's layers, watched over several windows at once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from torch import nn

from lightning_saturation.capture.capture import Capture
from lightning_saturation.capture.coverage import ENOUGH, coverage, unknown_layers
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
        self._model, self._chosen = model, layers is not None
        self._recording: str | None = None
        self._warned: set[str] = set()
        self._told = False
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

    def coverage(self, seen: Sequence[str]) -> float | None:
        """Return the share of the model's weights in the layers that were ``seen``, None where it has none."""
        return coverage(self._model, seen)

    def warn_about_missing(self, seen: Sequence[str]) -> None:
        """Warn, once each, of tracked layers that are not among those ``seen``, and of types that nobody knows."""
        self._warn_of_unknown(seen)
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

    def _warn_of_unknown(self, seen: Sequence[str]) -> None:
        unknown = {} if self._chosen or self._told else unknown_layers(self._model)
        self._told = True
        if sum(unknown.values()) <= 1 - ENOUGH:
            return
        types = ", ".join(f"{kind} ({share:.0%})" for kind, share in unknown.items() if share >= 0.01)
        warnings.warn(
            f"Only {self.coverage(seen) or 0:.0%} of the network's weights are in layers that are seen. Of no known"
            f" kind are {types}: tell of such types with `register_layer`, or name modules with `layers`.",
            stacklevel=3,
        )

    def _trouble(self, name: str, error: Exception) -> None:
        if self._recording is not None:
            self.windows[self._recording].trouble(name, error)
