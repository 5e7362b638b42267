"""A model's layers, watched over several windows at once."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from lightning_saturation.capture import Capture
from lightning_saturation.functional.pooling import Pooling
from lightning_saturation.tracking.accumulation import Accumulation
from lightning_saturation.tracking.accumulation import accumulation as resolve
from lightning_saturation.tracking.window import Window


class LayerTracker:
    """Hooks on the layers of ``model`` and one :class:`Window` per stage; knows no Trainer.

    Only between ``record(stage)`` and ``record(None)`` outputs are counted, into that stage's window.
    """

    views = True  # a budget chooses among positions before any of them is copied

    def __init__(
        self,
        model: nn.Module,
        *,
        stages: Sequence[str],
        layers: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
        pooling: Pooling = "mean",
        accumulation: Accumulation | None = None,
    ) -> None:
        self._capture = Capture(
            model, None, layers=layers, exclude=exclude, pooling=pooling, trouble=self._trouble, views=self.views
        )
        self._recording: str | None = None
        self._warned: set[str] = set()
        self.names = self._capture.names
        kept = resolve(pooling=pooling) if accumulation is None else accumulation
        self.windows = {stage: Window(self.names, kept) for stage in stages}

    def attach(self) -> None:
        """Put the hooks onto the model."""
        self._capture.attach()

    def detach(self) -> None:
        """Take them off again."""
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


def check_output_layers(
    names: Sequence[str], output_layers: Sequence[str] | None, *, argument: str = "output_layers"
) -> None:
    """Raise a ``ValueError`` where a name or glob in ``output_layers`` matches none of the tracked ``names``."""
    for pattern in _listed(output_layers or ()):
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(f"Expected `{argument}` to name tracked layers, among {list(names)}, got {pattern!r}.")


def choose_output_layers(ran: Sequence[str], output_layers: Sequence[str] | None) -> tuple[str, ...]:
    """Return which of the layers that ``ran``, in that order, are left out of the average.

    With None it is the last one, unless it is the only one.
    """
    if output_layers is None:
        return tuple(ran[-1:]) if len(ran) > 1 else ()
    return tuple(name for name in ran if any(fnmatchcase(name, pattern) for pattern in _listed(output_layers)))


def _listed(patterns: Sequence[str]) -> Sequence[str]:
    return [patterns] if isinstance(patterns, str) else patterns
