"""DFT-CCA of feature maps as a metric."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics import Metric

from lightning_saturation.functional.dft import (
    FrequencyCCA,
    FrequencyMoments,
    dft_cca,
    frequency_moments,
    merge_frequency_moments,
)
from lightning_saturation.functional.spectrum import check_delta
from lightning_saturation.metrics.dft_reduction import all_reduce_frequency_moments, described, shape_of
from lightning_saturation.metrics.moments import accumulation_device
from lightning_saturation.metrics.reduction import is_distributed, wire_device


class DFTCCA(Metric):
    """Return the mean canonical correlation of all feature maps seen, frequency by frequency: 0-d, in [0, 1].

    ``update(x, y)`` takes maps (samples, channels, height, width) of the same samples; the first ones fix the shapes.
    ``delta`` and ``resize`` are those of :func:`~lightning_saturation.functional.dft_cca`. State is one complex128
    matrix of channels × channels for each of about half the frequencies; it merges across batches, metrics and ranks.
    Samples with NaN or infinity are left out and counted in ``skipped``. ``frequencies()`` gives the correlations.

    Source: Raghu et al., *SVCCA*, section 3.1.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    samples: Tensor
    weights: Tensor
    x_mean: Tensor
    y_mean: Tensor
    scatter: Tensor
    skipped: Tensor

    def __init__(self, delta: float | None = None, resize: bool = False, **kwargs: Any) -> None:
        kwargs.setdefault("compute_with_cache", False)
        super().__init__(**kwargs)
        self.delta = delta if delta is None else check_delta(delta)
        self.resize = resize
        empty = torch.zeros(0, 0, 0, dtype=torch.complex128)
        self.add_state("samples", torch.zeros((), dtype=torch.int64))
        self.add_state("weights", torch.zeros(0, 0, dtype=torch.float64))
        self.add_state("x_mean", empty)
        self.add_state("y_mean", empty)
        self.add_state("scatter", empty[None])
        self.add_state("skipped", torch.zeros((), dtype=torch.int64))

    def update(self, x: Tensor, y: Tensor) -> None:
        """Add maps ``x`` and ``y`` (samples, channels, height, width) of the same samples."""
        home = accumulation_device(x.device)
        if not len(x) and not len(y):
            return
        batch = frequency_moments(x.to(home), y.to(home), resize=self.resize)
        self.skipped = self.skipped + len(x) - batch.samples.to(self.skipped.device)
        self._merge(batch)

    def compute(self) -> Tensor:
        """Return the mean correlation over all ranks; NaN before the first sample."""
        if self._moments is None:
            return torch.tensor(torch.nan, dtype=torch.float64, device=self.samples.device)
        return self.frequencies().mean

    def frequencies(self) -> FrequencyCCA:
        """Return the correlations at every frequency over all ranks; a collective call."""
        pending = self._to_sync and not self._is_synced
        available = self.distributed_available_fn
        with self.sync_context(should_sync=pending, should_unsync=pending, distributed_available=available):
            if (moments := self._moments) is None:
                raise ValueError("Expected an `update` with at least one sample first.")
            return dft_cca(moments, delta=self.delta)

    def plot(self, val: Tensor | Sequence[Tensor] | None = None, ax: Any = None) -> Any:
        """Return a matplotlib figure and axes of one value or of several over time."""
        return self._plot(val, ax)

    @property
    def _moments(self) -> FrequencyMoments | None:
        return _of_state({name: getattr(self, name) for name in self._defaults})

    def _merge(self, theirs: FrequencyMoments) -> None:
        ours = self._moments
        if ours is not None and shape_of(ours) != shape_of(theirs):
            raise ValueError(f"Expected maps with {described(ours)} as before, got {described(theirs)}.")
        self._set(theirs if ours is None else merge_frequency_moments(ours, theirs))

    def _set(self, moments: FrequencyMoments) -> None:
        split = moments.x_channels
        with torch.inference_mode(False):  # what is born in inference mode cannot be merged into outside of it
            self.samples, self.weights, self.scatter = (
                tensor.clone() for tensor in (moments.samples, moments.weights, moments.scatter)
            )
            self.x_mean, self.y_mean = moments.mean[..., :split].clone(), moments.mean[..., split:].clone()

    def _reduce_states(self, incoming_state: dict[str, Any]) -> None:
        theirs = _of_state({name: incoming_state[name].to(self.samples.device) for name in self._defaults})
        self.skipped = self.skipped + incoming_state["skipped"].to(self.skipped.device)
        if theirs is not None:
            self._merge(theirs)

    def _sync_dist(self, dist_sync_fn: Callable[..., Any] | None = None, process_group: Any = None) -> None:
        group = process_group or self.process_group
        if not is_distributed(group):
            return
        merged = all_reduce_frequency_moments(self._moments, group=group)
        skipped = self.skipped.to(wire_device(group), copy=True)
        dist.all_reduce(skipped, group=group)
        self.skipped = skipped.to(self.skipped.device)
        if merged is not None:
            self._set(merged)

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Any = "") -> Any:
        # Only moves: complex128 sums cast by a parent's `.to(dtype)` would never come back.
        def move(tensor: Tensor) -> Tensor:
            target = fn(torch.empty(0, dtype=torch.float32, device=tensor.device)).device
            return tensor.to(accumulation_device(target))

        return super()._apply(move, exclude_state)


def _of_state(state: dict[str, Tensor]) -> FrequencyMoments | None:
    if not state["weights"].numel():
        return None
    mean = torch.cat([state["x_mean"], state["y_mean"]], dim=-1)
    return FrequencyMoments(state["samples"], mean, state["scatter"], state["weights"], state["x_mean"].shape[-1])
