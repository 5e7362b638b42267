"""State that every metric over moments of rows shares: how it accumulates, merges and crosses ranks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_saturation.covariance.moments import (
    Moments,
    ShiftedSums,
    add_rows,
    empty_sums,
    from_sums,
    merge_moments,
    to_sums,
)
from lightning_saturation.covariance.reduction import all_reduce_moments
from lightning_saturation.covariance.state_metric import StateMetric, accumulation_device


class MomentsMetric(StateMetric):
    """Shifted sums of rows as metric state, which derived metrics turn into numbers in ``compute``.

    ``add(rows)`` is what :class:`Covariance` documents of ``update``.
    """

    shift: Tensor
    total: Tensor
    products: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._add_states(empty_sums(0))

    def add(self, x: Tensor, *, weight: int = 1) -> None:
        """Add rows ``x`` (samples, features), each as often as ``weight`` says."""
        self._check(x)
        if not len(x):
            return
        if not len(self.shift):
            home = accumulation_device(x.device)
            self._set(empty_sums(x.shape[1], device=home))
            self.skipped = self.skipped.to(home)  # a count on another device would wait for this one at every update
        elif self.products.is_inference() and not torch.is_inference_mode_enabled():
            # What torchmetrics restores or merges in inference mode could not be added to in place outside it.
            self._set(ShiftedSums(*(tensor.clone() for tensor in self._sums)))
        self.skipped = self.skipped + add_rows(self._sums, x, weight=weight)

    def _check(self, x: Tensor) -> None:
        if not isinstance(x, Tensor) or x.is_complex() or x.dtype == torch.bool:
            raise TypeError(f"Expected `x` to be a real tensor, got {getattr(x, 'dtype', type(x).__name__)}.")
        if x.ndim != 2 or not x.shape[1]:
            raise ValueError(f"Expected `x` of shape (samples, features), got {tuple(x.shape)}.")
        if len(x) and len(self.shift) not in (0, x.shape[1]):
            raise ValueError(f"Expected `x` with {len(self.shift)} features as before, got {x.shape[1]}.")

    def moments(self) -> Moments | None:
        """Return the moments of this rank's rows, or None before the first."""
        return from_sums(self._sums) if len(self.shift) else None

    @property
    def _sums(self) -> ShiftedSums:
        return self._get(ShiftedSums)

    def _reduce_states(self, incoming_state: dict[str, Any]) -> None:
        theirs = ShiftedSums(*(incoming_state[name] for name in ShiftedSums._fields))
        if len(theirs.shift) and len(self.shift) not in (0, len(theirs.shift)):
            raise ValueError(f"Expected a state with {len(self.shift)} features to merge, got {len(theirs.shift)}.")
        super()._reduce_states(incoming_state)
        if not len(self.shift):
            self._set(ShiftedSums(*(tensor.clone() for tensor in theirs)))
        elif len(theirs.shift):
            moved = ShiftedSums(*(tensor.to(self.shift.device) for tensor in theirs))
            self._set(to_sums(merge_moments(from_sums(self._sums), from_sums(moved))))

    def _merge_ranks(self, group: Any) -> None:
        merged = all_reduce_moments({(name := type(self).__name__): self.moments()}, group=group)
        if merged:
            self._set(to_sums(merged[name]))
