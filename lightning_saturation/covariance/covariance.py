"""Moments of everything seen as metric state, which derived metrics share, and the covariance among these."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_saturation.covariance.moments import (
    Moments,
    ShiftedSums,
    add_rows,
    covariance,
    empty_sums,
    from_sums,
    merge_moments,
    to_sums,
)
from lightning_saturation.covariance.reduction import all_reduce_moments
from lightning_saturation.covariance.spectrum import covariance_eigenvalues
from lightning_saturation.covariance.state_metric import StateMetric, accumulation_device, check_rows


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
        check_rows(x, len(self.shift))
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


class Covariance(MomentsMetric):
    """Return the unbiased covariance (features, features), float64, of all rows seen, the same for any split of them.

    ``update(x)`` takes rows (samples, features); the first one fixes the number of features. Rows with NaN or infinity
    are left out and counted in ``skipped``. State is exact at large offsets and merges across batches, metrics and
    ranks, the latter by two all-reduces (``dist_sync_fn`` is not used). Casts of a parent module do not reach it.
    """

    def update(self, x: Tensor) -> None:
        """Add rows ``x`` (samples, features)."""
        self.add(x)

    def forward(self, x: Tensor) -> Tensor:
        """Add rows ``x`` (samples, features) and return the value of these rows alone."""
        check_rows(x, len(self.shift))  # against what was seen, while that is not set aside
        value: Tensor = super().forward(x)
        return value

    def compute(self) -> Tensor:
        """Return the covariance over all ranks."""
        return self.covariance()

    def covariance(self) -> Tensor:
        """Return the covariance (features, features) over all ranks; a collective call."""
        with self._synced():
            return covariance(from_sums(self._sums))

    def mean(self) -> Tensor:
        """Return the mean (features,) over all ranks; a collective call."""
        with self._synced():
            return from_sums(self._sums).mean

    def eigenvalues(self) -> Tensor:
        """Return the covariance's eigenvalues (features,), largest first, over all ranks; a collective call."""
        return covariance_eigenvalues(self.covariance())
