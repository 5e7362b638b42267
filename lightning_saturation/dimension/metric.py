"""The TwoNN dimension of everything seen, as a metric."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_saturation.covariance.ranks import gather_tensors
from lightning_saturation.covariance.state_metric import PlottedMetric, accumulation_device
from lightning_saturation.dimension.copies import without_copies
from lightning_saturation.dimension.neighbours import merge_nearest, two_nearest
from lightning_saturation.dimension.two_nn_law import FEWEST, TwoNNEstimate, check_options, estimate_from_nearest
from lightning_saturation.dimension.two_nn_state import Anchors, merge_anchors


class TwoNN(PlottedMetric):
    """Return the TwoNN dimension (0-d, float64) of all rows seen, from exact neighbours, for any split of them.

    Memory is bounded: rows are kept for at most ``anchors`` points. The dimension is estimated at these anchors, each
    with its two nearest neighbours among *everything* seen, of which nothing but the two distances is kept.
    ``update(x)`` takes rows (samples, features), all of the same width; those with NaN or infinity are left out and
    counted in ``skipped``. No row is a neighbour twice, whenever its copies come, nor its own: copies of anchors are
    counted in ``duplicates``. ``compute()`` is NaN, with a warning, where the rows cannot tell a dimension (fewer than
    five different ones); ``estimate()`` returns error, interval and duplicates too, and raises there.

    Args:
        anchors: a number: the first so many different rows become anchors, on each rank those that it sees. Or rows
            (anchors, features), the same on every rank: they count as seen, so ``update`` must not see them again.
        discard: share of the anchors with the largest ratios that is left out, in [0, 1).
        estimator: ``"fit"`` or ``"mle"``, see ``functional.two_nn_dimension``.
        kwargs: those of ``torchmetrics.Metric`` (``dist_sync_fn`` is not used).

    Merging metrics or ranks is exact as long as at most one of them saw more rows than its anchors. Beyond that the
    anchors of one have never met the rows of another, and a ``RuntimeError``, the same on all ranks, asks for anchors
    that all ranks share; with those there is no limit.

    Source: Facco et al., *Estimating the intrinsic dimension of datasets by a minimal neighborhood information*, 2017.

    >>> metric = TwoNN()
    >>> plane = torch.rand(1000, 2, generator=torch.Generator().manual_seed(0))
    >>> metric.update(plane[:300])
    >>> metric.update(plane[300:])
    >>> round(float(metric.compute()))
    2
    """

    full_state_update = True  # for `forward`: a batch alone is another set of anchors, not a part of this one
    plot_lower_bound = 0.0

    anchors: Tensor
    nearest: Tensor
    keys: Tensor
    duplicates: Tensor

    def __init__(
        self,
        anchors: int | Tensor = 4096,
        *,
        discard: float = 0.1,
        estimator: Literal["fit", "mle"] = "fit",
        **kwargs: Any,
    ) -> None:
        check_options(discard, estimator)
        super().__init__(**kwargs)
        self.discard = discard
        self.estimator: Literal["fit", "mle"] = estimator
        self.shared = isinstance(anchors, Tensor)
        rows = _checked_rows(anchors) if isinstance(anchors, Tensor) else torch.zeros(0, 0)
        self.capacity = len(rows) if isinstance(anchors, Tensor) else anchors
        if self.capacity < FEWEST:
            raise ValueError(f"Expected at least {FEWEST} `anchors`, got {self.capacity}.")
        self.add_state("anchors", rows)
        self.add_state("nearest", torch.full((len(rows), 2), torch.inf, dtype=torch.float64))
        self.add_state("keys", torch.full((len(rows), 2), -1))
        self.add_state("samples", torch.tensor(len(rows)))
        self.add_state("duplicates", torch.tensor(0))

    def update(self, x: Tensor) -> None:
        """Add rows ``x`` (samples, features)."""
        if not isinstance(x, Tensor):
            raise TypeError(f"Expected `x` to be a tensor, got {type(x).__name__}.")
        if x.ndim != 2 or not x.is_floating_point():
            raise ValueError(f"Expected `x` of shape (samples, features), floating, got {tuple(x.shape)}, {x.dtype}.")
        if not len(x):
            return
        if len(self.anchors) and x.shape[1] != self.anchors.shape[1]:
            raise ValueError(f"Expected `x` with {self.anchors.shape[1]} features as before, got {x.shape[1]}.")
        x = x.detach()
        finite = x.isfinite().all(dim=1)
        rows = x[finite].to(accumulation_device(x.device))
        self.skipped = self.skipped + (len(x) - len(rows))
        self._set(self._get(Anchors).moved(rows.device).seeing(rows, capacity=self.capacity))

    def compute(self) -> Tensor:
        """Return the dimension over all ranks."""
        try:
            dimension = self.estimate().dimension
        except ValueError as error:
            warnings.warn(f"No TwoNN dimension. {error}", UserWarning, stacklevel=2)
            dimension = torch.nan
        return torch.tensor(dimension, dtype=torch.float64, device=self.anchors.device)

    def estimate(self, *, confidence: float = 0.95) -> TwoNNEstimate:
        """Return the dimension with error, interval and what was dropped, over all ranks; a collective call."""
        check_options(self.discard, self.estimator, confidence)
        with self._synced():
            return estimate_from_nearest(
                merge_nearest(self.nearest, two_nearest(self.anchors)),
                discard=self.discard,
                estimator=self.estimator,
                confidence=confidence,
                duplicates=int(self.duplicates),
                skipped=int(self.skipped),
            )

    def merge_state(self, incoming_state: dict[str, Any] | Metric) -> None:
        """Add what another ``TwoNN`` saw."""
        if isinstance(incoming_state, TwoNN):
            incoming_state = incoming_state.metric_state
        if not isinstance(incoming_state, Mapping):
            raise ValueError(f"Expected `incoming_state` to be a TwoNN or its state, got {type(incoming_state)}.")
        theirs = Anchors(*(incoming_state[name] for name in Anchors._fields))
        self._set(merge_anchors([self._get(Anchors), theirs.moved(self.anchors.device)], shared=self.shared))
        self._reduce_states(dict(incoming_state))

    def _merge_ranks(self, group: Any) -> None:
        states = [Anchors(*each) for each in gather_tensors(self._get(Anchors), group)]
        self._set(merge_anchors(states, shared=self.shared))


def _checked_rows(anchors: Tensor) -> Tensor:
    if anchors.ndim != 2 or not anchors.is_floating_point() or not bool(anchors.isfinite().all()):
        raise ValueError(
            f"Expected `anchors` of shape (anchors, features), floating and finite, got {tuple(anchors.shape)},"
            f" {anchors.dtype}."
        )
    return without_copies(anchors.detach().clone().to(accumulation_device(anchors.device)))
