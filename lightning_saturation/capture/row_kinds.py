"""What the rows of a layer are: samples, more of them than samples, or no data at all."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from lightning_saturation.capture.pooling import Pooling

Rows = Literal["samples", "positions", "none"]
"""``"samples"``; ``"positions"`` where a batch gives more rows than samples (tokens, windows, several calls); and
``"none"`` where it gives one, or the same whatever the data are."""


class RowKinds:
    """How many rows each layer puts out in a batch, beside how many samples there are."""

    def __init__(self, pooling: Pooling | None) -> None:
        self._pooling = pooling
        self.forget()

    def forget(self) -> None:
        """Forget all batches."""
        self._counts: dict[str, int] = {}
        self._many: set[str] = set()
        self._some: dict[str, None] = {}
        self._seen: dict[str, None] = {}
        self._compared: set[str] = set()

    def count(self, name: str, rows: int) -> None:
        """Take in so many ``rows`` of layer ``name``."""
        self._counts[name] = self._counts.get(name, 0) + rows

    def end_batch(self, samples: int) -> None:
        """Take in that the batch had so many ``samples``; 0 stands for a number that nobody knows."""
        counts, self._counts = self._counts, {}
        self._seen |= dict.fromkeys(counts)
        if samples > 1:
            self._compared.update(counts)
            self._many.update(name for name, rows in counts.items() if rows > samples)
            self._some |= dict.fromkeys(name for name, rows in counts.items() if rows > 1)

    def all(self, *, constant: Collection[str]) -> dict[str, Rows]:
        """Return what the rows of each layer are; ``constant`` layers were seen to depend on no data."""
        return {name: self._kind(name, name in constant) for name in self._seen}

    def _kind(self, name: str, constant: bool) -> Rows:
        if constant or (name in self._compared and name not in self._some):
            return "none"
        return "positions" if name in self._many or self._pooling == "positions" else "samples"
