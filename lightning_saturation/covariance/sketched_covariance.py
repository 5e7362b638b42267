"""The covariance of wide rows in a fraction of its memory, as a metric."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_saturation.covariance.reduction import agree, merge_over_ranks
from lightning_saturation.covariance.sketch import Sketch, add_to_sketch, empty_sketch, merge_sketches, sketch_size
from lightning_saturation.covariance.sketch_bounds import dimension_bracket, estimated_eigenvalues
from lightning_saturation.covariance.spectrum import check_delta
from lightning_saturation.covariance.state_metric import StateMetric, accumulation_device, check_rows


class SketchedCovariance(StateMetric):
    """Return certified bounds (2,) on the saturation of all rows seen, float64: the lowest and the highest possible.

    Both are NaN before the first row.

    For layers too wide for a :class:`Covariance`: state is ``size`` rows instead of ``features``. ``update(x)`` takes
    rows (samples, features); the first one fixes the number of features; rows with NaN or infinity are left out and
    counted in ``skipped``. The bounds hold whatever the batches, and over ranks, whose sketches merge in log2(ranks)
    rounds (``dist_sync_fn`` is not used). Casts of a parent module do not reach the state.

    Args:
        size: directions kept, None for a 32nd of the features and at least 64. Bounds are narrow where ``size`` is a
            few times the intrinsic dimension.
        delta: share of the variance that the counted directions hold, in (0, 1].
        kwargs: those of ``torchmetrics.Metric``.

    Raises ``ValueError`` for an argument out of range or rows of another width.
    Source: Ghashami et al., *Frequent Directions*, 2016; see :class:`~lightning_saturation.covariance.sketch.Sketch`.
    """

    shift: Tensor
    offset: Tensor
    rows: Tensor

    def __init__(self, size: int | None = None, delta: float = 0.99, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size = size
        self.delta = check_delta(delta)
        self._add_states(empty_sketch(0, size=1 if size is None else size))

    def update(self, x: Tensor, weight: int = 1) -> None:
        """Add rows ``x`` (samples, features), each as often as ``weight`` says."""
        check_rows(x, len(self.shift))
        if not len(x):
            return
        if not len(self.shift):
            self._set(empty_sketch(x.shape[1], size=self.size, device=accumulation_device(x.device)))
        for part in torch.split(x, len(self.rows)):
            sketch, skipped = add_to_sketch(self._sketch, part, weight=weight)
            self._set(sketch)
            self.skipped = self.skipped + skipped.to(self.skipped.device)

    def compute(self) -> Tensor:
        """Return the bounds over all ranks."""
        if not int(self.samples):
            return torch.full((2,), torch.nan, dtype=torch.float64, device=self.shift.device)
        bracket = dimension_bracket(self._sketch, delta=self.delta)
        return torch.tensor([k / len(self.shift) for k in bracket], dtype=torch.float64, device=self.shift.device)

    def sketch(self) -> Sketch | None:
        """Return the sketch of this rank's rows (of all ranks' within a synchronisation), or None before the first."""
        return self._sketch if len(self.shift) else None

    def eigenvalues(self) -> Tensor:
        """Return estimates (features,) of the covariance's eigenvalues, largest first, with their exact sum."""
        return estimated_eigenvalues(self._sketch)

    @property
    def _sketch(self) -> Sketch:
        return self._get(Sketch)

    def _reduce_states(self, incoming_state: dict[str, Any]) -> None:
        theirs = Sketch(*(incoming_state[name].to(self.shift.device) for name in Sketch._fields))
        if len(theirs.shift) and len(self.shift) not in (0, len(theirs.shift)):
            raise ValueError(f"Expected a state with {len(self.shift)} features to merge, got {len(theirs.shift)}.")
        super()._reduce_states(incoming_state)
        if len(theirs.shift):
            self._set(merge_sketches(self._sketch, theirs) if len(self.shift) else theirs)

    def _merge_ranks(self, group: Any) -> None:
        own = self.sketch()
        # The size is part of the name, so that ranks with another one are told so instead of hanging.
        name = f"{type(self).__name__}(size={self.size})"
        for width in agree({name: None if own is None else len(own.shift)}, group=group).values():
            sizes = {name: self.size or sketch_size(width)}
            self._set(merge_over_ranks({name: own}, {name: width}, sizes, group=group)[name])
