"""What a callback found in a process that was started for the training comes back to the one that started it."""

from __future__ import annotations

import os
import tempfile
import uuid
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from lightning_saturation.drawing.replacing import replacing

T = TypeVar("T")


class Handover:
    """A file by which the process of rank 0 leaves a state for the process in which the callback was made.

    Strategies that spawn or fork work on copies of the callbacks and throw them away. The file is in the folder for
    temporary files, is written where training ends and goes when it is read.
    """

    def __init__(self) -> None:
        self._home = os.getpid()
        self._path = Path(tempfile.gettempdir(), f"lightning_saturation-{uuid.uuid4().hex}.pt")

    @property
    def is_away(self) -> bool:
        """Whether this process is another one than that in which the callback was made."""
        return os.getpid() != self._home

    def leave(self, state: dict[str, Any]) -> None:
        """Write ``state`` for the process at home."""
        with replacing(self._path) as path:
            torch.save(state, path)

    def take(self) -> dict[str, Any] | None:
        """Return what another process left, once; None where there is nothing."""
        if self.is_away or not self._path.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(self._path, weights_only=True)
        finally:
            self._path.unlink(missing_ok=True)
        return state


class HandedBack(Generic[T]):
    """An attribute of a monitor, a ``T``, for which the process at home first looks into what another one left."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = f"_{name}"

    def __get__(self, monitor: Any, owner: type | None = None) -> T:
        monitor.take_back()
        value: T = getattr(monitor, self._name)
        return value

    def __set__(self, monitor: Any, value: T) -> None:
        setattr(monitor, self._name, value)
