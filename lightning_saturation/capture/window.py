"""What all layers put out over a stretch of batches, whatever becomes of it."""

from __future__ import annotations

import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

MOST_CARRIED = 2**27
"""Bytes of an open window that a checkpoint may hold."""


class LayerWindow(ABC):
    """Rows of the layers called ``names`` since the last ``reset``; a subclass says what it keeps of them.

    ``order`` holds the layers in the order in which they run, ``seen`` those that put out anything in this window.
    """

    quantity: ClassVar[str]
    """What the window is for, in warnings."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.order: list[str] = []
        self.seen: dict[str, None] = {}
        self.batches: int | None = None
        """How many batches the window will have, where that is known."""
        self._kept: dict[str, Any] = {}  # by layer, what has `reset`, `to_state` and `load_state`
        self._places: dict[str, int] = {}  # of the layers in `order`
        self._reached = 0  # how many of `order` lie before the last that ran in this batch, itself included
        self._troubled: set[tuple[str, str, str]] = set()

    @property
    def is_empty(self) -> bool:
        """Whether no layer has put out anything since the last ``reset``, on this rank."""
        return not self.seen

    def begin_batch(self) -> None:
        """Note that what comes next runs at the beginning of the model again."""
        self._reached = 0

    def arrange(self, order: Sequence[str]) -> None:
        """Put the layers into ``order``; those that it does not hold stay behind the layer that they ran behind."""
        known = [name for name in order if name in self.names]
        rest = [(name, self.order[:index]) for index, name in enumerate(self.order) if name not in known]
        self.order = known
        for name, before in rest:
            self.order.insert(max((self.order.index(each) + 1 for each in before), default=0), name)
        self._number()

    def note(self, name: str) -> None:
        """Note that layer ``name`` runs."""
        if name not in self._places:
            # Behind those that ran before it, not at the end: an earlier batch may have skipped this layer.
            self.order.insert(self._reached, name)
            self._number()
        # A layer that is used again does not lead back: what follows it lies behind all that ran.
        self._reached = max(self._reached, self._places[name] + 1)

    def add(self, name: str, rows: Tensor) -> None:
        """Take in ``rows`` (…, features) of layer ``name``; whatever fails is left out, with one warning."""
        try:
            self.note(name)
            if self._keep(name, rows):
                self.seen[name] = None
        except Exception as error:  # a user's training must not end because of a diagnostic
            self.trouble(name, error)

    def trouble(self, name: str, error: Exception) -> None:
        """Warn, once a layer and cause, that some of its outputs are left out."""
        cause = (name, type(error).__name__, re.sub(r"\d+", "#", str(error)))
        if cause not in self._troubled:
            self._troubled.add(cause)
            warnings.warn(f"Some outputs of layer {name!r} are left out of its {self.quantity}: {error}", stacklevel=2)

    def reset(self) -> None:
        """Start the next window."""
        self.seen.clear()
        for kept in self._kept.values():
            kept.reset()

    def to_state(self) -> dict[str, Any] | None:
        """Return all that was kept, for a checkpoint, or None where that would take more than 128 MiB."""
        layers: dict[str, Any] = {}
        for name in self.seen:
            layers[name] = self._kept[name].to_state()
            if sum(_bytes(layer) for layer in layers.values()) > MOST_CARRIED:
                return None
        return {"order": list(self.order), "seen": list(self.seen), "layers": layers}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state`` was written; layers that this window does not have are left out."""
        self.reset()
        self.order = [name for name in state["order"] if name in self.names]
        self._number()
        for name in state["seen"]:
            if name in self.order:
                self._load_layer(name, state["layers"][name])
                self.seen[name] = None

    def _number(self) -> None:
        self._places = {name: place for place, name in enumerate(self.order)}

    @abstractmethod
    def _load_layer(self, name: str, state: Mapping[str, Any]) -> None:
        """Take up the ``state`` of what was kept of layer ``name``."""

    @abstractmethod
    def _keep(self, name: str, rows: Tensor) -> bool:
        """Keep of ``rows`` what the window is for, and return whether there was anything."""


def _bytes(state: Mapping[str, Any]) -> int:
    return sum(value.nbytes for value in state.values() if isinstance(value, Tensor))
