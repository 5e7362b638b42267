"""State that every similarity metric shares: the joint moments of two representations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_saturation.covariance.covariance import MomentsMetric
from lightning_saturation.covariance.moments import from_sums, to_sums
from lightning_saturation.covariance.ranks import gather
from lightning_saturation.covariance.state_metric import PlottedMetric, accumulation_device
from lightning_saturation.similarity.pairs import (
    PairMoments,
    check_rows,
    joint_rows,
    move_origin,
    row_mean,
    split_moments,
)


class PairMetric(PlottedMetric, MomentsMetric):
    """Joint moments of rows ``x`` and ``y`` of the same samples, which derived metrics turn into a similarity.

    ``update(x, y)`` takes rows (samples, features); the first ones fix both widths. A sample with NaN or infinity on
    either side is left out and counted in ``skipped``. The state is the same for all derived metrics, so that a
    ``MetricCollection`` of them accumulates it once. Raises ``ValueError`` for rows of different samples or widths that
    change, and ``RuntimeError`` on all ranks where they differ between ranks.
    """

    higher_is_better = True

    x_origin: Tensor
    y_origin: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # What the squared lengths in the rows are counted from; their own shapes say where x ends and y begins.
        self.add_state("x_origin", torch.zeros(0, dtype=torch.float64))
        self.add_state("y_origin", torch.zeros(0, dtype=torch.float64))

    def update(self, x: Tensor, y: Tensor) -> None:
        """Add rows ``x`` (samples, x_features) and ``y`` (samples, y_features) of the same samples."""
        check_rows(x, y)
        if not len(x):
            return
        home = accumulation_device(x.device)
        x, y = x.detach().to(home, torch.float64), y.detach().to(home, torch.float64)
        if not len(self.x_origin):
            finite = x.isfinite().all(1) & y.isfinite().all(1)
            self._set_origin(row_mean(x, finite), row_mean(y, finite))
        for name, rows, origin in (("x", x, self.x_origin), ("y", y, self.y_origin)):
            if rows.shape[1] != len(origin):
                raise ValueError(f"Expected `{name}` with {len(origin)} features as before, got {rows.shape[1]}.")
        self.add(joint_rows(x, y, origin=self._origin))

    def compute(self) -> Tensor:
        """Return the similarity over all ranks."""
        return self._of_nothing() if self._is_empty else self._of(self.pair())

    def pair(self) -> PairMoments:
        """Return the joint moments over all ranks; a collective call. Raises ``ValueError`` before the first row."""
        with self._synced():
            if not len(self.x_origin):
                raise ValueError("Expected an `update` with at least one sample first.")
            return split_moments(from_sums(self._sums), x_features=len(self.x_origin), origin=self._origin)

    def _of(self, pair: PairMoments) -> Tensor:
        """Return the similarity that ``pair`` has."""
        raise NotImplementedError

    def _of_nothing(self) -> Tensor:
        """Return what stands for the similarity before the first row."""
        return self._nan()

    @property
    def _is_empty(self) -> bool:
        return not len(self.x_origin)

    @property
    def _origin(self) -> Tensor:
        return torch.cat([self.x_origin, self.y_origin])

    def _set_origin(self, x_origin: Tensor, y_origin: Tensor) -> None:
        with torch.inference_mode(False):
            self.x_origin, self.y_origin = x_origin.clone(), y_origin.clone()

    def _move_origin(self, x_origin: Tensor, y_origin: Tensor) -> None:
        there = torch.cat([x_origin, y_origin])
        joint = from_sums(self._sums)
        self._set(to_sums(move_origin(joint, x_features=len(x_origin), origin=self._origin, to=there)))
        self._set_origin(x_origin, y_origin)

    def _reduce_states(self, incoming_state: dict[str, Any]) -> None:
        theirs = incoming_state["x_origin"], incoming_state["y_origin"]
        if len(theirs[0]) and self._is_empty:
            self._set_origin(*theirs)
        elif len(theirs[0]):
            ours = self.x_origin, self.y_origin
            if [len(origin) for origin in ours] != [len(origin) for origin in theirs]:
                raise ValueError(
                    f"Expected a state of {len(ours[0])} and {len(ours[1])} features to merge,"
                    f" got {len(theirs[0])} and {len(theirs[1])}."
                )
            # The other side's lengths are about its own origin: ours moves there, which leaves the rest as it was.
            home = self.shift.device
            self._move_origin(*(origin.to(home) for origin in theirs))
        super()._reduce_states(incoming_state)

    def _merge_ranks(self, group: Any) -> None:
        own = None if self._is_empty else (self.x_origin.cpu(), self.y_origin.cpu())
        seen = [(rank, origins) for rank, origins in enumerate(gather(own, group)) if origins is not None]
        widths = {rank: tuple(map(len, origins)) for rank, origins in seen}
        if len(set(widths.values())) > 1:
            raise RuntimeError(f"Expected `x` and `y` of the same widths on every rank, got {widths} by rank.")
        if seen:
            common = [origin.to(self.shift.device) for origin in seen[0][1]]
            (self._set_origin if self._is_empty else self._move_origin)(*common)
        super()._merge_ranks(group)
