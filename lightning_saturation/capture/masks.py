"""Which positions of a batch are data, and not padding."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

Mask = str | Callable[[Any], Tensor] | None
"""A key of dict batches, or a function from a batch to a boolean (samples, positions)."""

_USUAL = "attention_mask"
_ASKED = 8  # so many batches are asked for padding: each asking waits for a GPU


def check_mask(mask: Any, pooling: str | None) -> None:
    """Raise unless ``mask`` is a key, a function or None that goes with ``pooling``."""
    if not (mask is None or isinstance(mask, str) or callable(mask)):
        raise TypeError(f"Expected `mask` to be a key of the batches, a function of a batch or None, got {mask!r}.")
    if mask is not None and pooling == "flatten":
        raise ValueError("Expected `pooling` other than 'flatten' with a `mask`: rows would differ in length.")


def mask_of(batch: Any, mask: Mask) -> Tensor | None:
    """Return which positions of ``batch`` are data, bool (samples, positions); None without a ``mask``.

    Raises ``ValueError`` for a batch that does not hold the key, or a mask of another shape.
    """
    if mask is None:
        return None
    found = _entry(batch, mask) if isinstance(mask, str) else mask(batch)
    if not isinstance(found, Tensor):
        raise ValueError(f"Expected `mask` to give a tensor for every batch, got {found!r} for {mask!r}.")
    if found.ndim != 2:
        raise ValueError(f"Expected a `mask` of shape (samples, positions), got {tuple(found.shape)}.")
    return found.detach() != 0


class PaddingWarning:
    """Warns once of batches with padding that no ``mask`` leaves out."""

    def __init__(self, mask: Mask) -> None:
        self._left = 0 if mask is not None else _ASKED

    def look(self, batch: Any) -> None:
        """Warn where ``batch`` holds padding, by the usual key of a mask."""
        if not self._left:
            return
        self._left -= 1
        found = _entry(batch, _USUAL)
        if isinstance(found, Tensor) and found.ndim == 2 and bool((found == 0).any()):
            self._left = 0
            warnings.warn(
                f"Batches hold padding, by their {_USUAL!r}, and it counts as data: `mask={_USUAL!r}` leaves it out.",
                stacklevel=4,
            )


def fits(mask: Tensor, samples: int, positions: Iterable[int]) -> bool:
    """Return whether ``mask`` is about an output of so many ``samples`` with ``positions`` in these dimensions."""
    return tuple(mask.shape) == (samples, *positions)


def pool_masked(rows: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """Return ``rows`` (samples, positions, features) pooled over those positions that ``mask`` holds True for.

    A sample without any has NaN in its row.
    """
    inside = mask.unsqueeze(-1)
    if pooling == "positions":
        return rows[mask]
    empty = ~mask.any(1)
    if pooling == "mean":
        total = torch.where(inside, rows, 0).sum(1, dtype=torch.promote_types(rows.dtype, torch.float32))
        return total / mask.sum(1, keepdim=True)
    if pooling == "max":
        pooled = torch.where(inside, rows, -torch.inf).amax(1)
    elif pooling == "median":
        pooled = torch.where(inside, rows, torch.nan).nanmedian(1).values
        pooled = pooled.masked_fill((rows.isnan() & inside).any(1), torch.nan)
    else:  # the last one
        last = mask.shape[1] - 1 - mask.flip(1).int().argmax(1)
        pooled = rows[torch.arange(len(rows), device=rows.device), last]
    return pooled.masked_fill(empty.unsqueeze(1), torch.nan)


def _entry(batch: Any, key: str) -> Any:
    if isinstance(batch, Mapping):
        return batch.get(key)
    parts = batch if isinstance(batch, list | tuple) else ()
    return next((part[key] for part in parts if isinstance(part, Mapping) and key in part), None)
