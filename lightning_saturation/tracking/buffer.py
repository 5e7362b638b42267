"""Rows collected until there are enough of them to be worth touching a covariance."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_saturation.functional.moments import Moments
from lightning_saturation.metrics import Covariance

# Updating a (features, features) matrix once per step moves more memory than it does arithmetic; about as many rows as
# features at a time turn it into a matrix product. The bytes bound what a very wide layer may hold.
_LEAST_ROWS = 1024
_MOST_BYTES = 32 * 2**20


class RowBuffer:
    """The rows of one layer over one window, on their way into a covariance."""

    def __init__(self) -> None:
        self._covariance = Covariance(sync_on_compute=False)
        self._rows = torch.empty(0, 0)
        self._filled = 0

    def add(self, rows: Tensor) -> None:
        """Take ``rows`` (samples, features) in; raises ``ValueError`` where their width is not that of the first."""
        if not len(rows):
            return
        dtype = torch.promote_types(rows.dtype, torch.float32)
        if not self._rows.shape[1] or torch.promote_types(dtype, self._rows.dtype) != self._rows.dtype:
            self._flush()
            self._allocate(rows.shape[1], dtype, rows.device)
        if rows.shape[1] != self._rows.shape[1]:
            raise ValueError(f"Expected rows of {self._rows.shape[1]} features as before, got {rows.shape[1]}.")
        if self._filled + len(rows) > len(self._rows):
            self._flush()
        if len(rows) >= len(self._rows):
            for part in torch.split(rows, len(self._rows)):
                self._covariance.update(part)
            return
        self._rows[self._filled : self._filled + len(rows)].copy_(rows)
        self._filled += len(rows)

    def moments(self) -> Moments | None:
        """Return the moments of all rows, or None where there were none."""
        self._flush()
        return self._covariance.moments()

    @property
    def skipped(self) -> int:
        """How many rows were left out for NaN or infinity."""
        self._flush()
        return int(self._covariance.skipped)

    def reset(self) -> None:
        """Forget all rows."""
        self._filled = 0
        self._covariance.reset()

    def _allocate(self, features: int, dtype: torch.dtype, device: torch.device) -> None:
        fitting = _MOST_BYTES // (features * dtype.itemsize) if features else 0
        # Born outside of inference mode, in which Lightning validates, so that training may write into it too.
        with torch.inference_mode(False):
            self._rows = torch.empty(
                max(1, min(max(_LEAST_ROWS, features), fitting)), features, dtype=dtype, device=device
            )

    def _flush(self) -> None:
        if self._filled:
            filled, self._filled = self._filled, 0
            self._covariance.update(self._rows[:filled])
