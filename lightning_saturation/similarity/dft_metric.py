"""DFT-CCA of feature maps as a metric, and its state over all ranks."""

from __future__ import annotations

from functools import reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_saturation.covariance.ranks import gather, gather_tensors
from lightning_saturation.covariance.spectrum import check_delta
from lightning_saturation.covariance.state_metric import PlottedMetric, accumulation_device
from lightning_saturation.similarity.dft import (
    FrequencyCCA,
    FrequencyMoments,
    dft_cca,
    frequency_moments,
    merge_frequency_moments,
)


class DFTCCA(PlottedMetric):
    """Return the mean canonical correlation of all feature maps seen, frequency by frequency: 0-d, in [0, 1].

    ``update(x, y)`` takes maps (samples, channels, height, width) of the same samples; the first ones fix the shapes.
    ``delta`` and ``resize`` are those of :func:`~lightning_saturation.functional.dft_cca`. State is one complex128
    matrix of channels × channels for each of about half the frequencies; it merges across batches, metrics and ranks.
    Samples with NaN or infinity are left out and counted in ``skipped``. ``frequencies()`` gives the correlations.

    Source: Raghu et al., *SVCCA*, section 3.1.
    """

    higher_is_better = True
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    def __init__(self, delta: float | None = None, resize: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.delta = delta if delta is None else check_delta(delta)
        self.resize = resize
        empty = torch.zeros(0, 0, 0, dtype=torch.complex128)
        weights = torch.zeros(0, 0, dtype=torch.float64)
        self._add_states(FrequencyMoments(torch.tensor(0), empty, empty[None], weights, torch.tensor(0)))

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
            return self._nan()
        return self.frequencies().mean

    def frequencies(self) -> FrequencyCCA:
        """Return the correlations at every frequency over all ranks; a collective call."""
        with self._synced():
            if (moments := self._moments) is None:
                raise ValueError("Expected an `update` with at least one sample first.")
            return dft_cca(moments, delta=self.delta)

    @property
    def _moments(self) -> FrequencyMoments | None:
        moments = self._get(FrequencyMoments)
        return moments if moments.weights.numel() else None

    def _merge(self, theirs: FrequencyMoments) -> None:
        ours = self._moments
        if ours is not None and (before := _shape_of(ours)) != (now := _shape_of(theirs)):
            raise ValueError(f"Expected maps with {_described(*before)} as before, got {_described(*now)}.")
        self._set(theirs if ours is None else merge_frequency_moments(ours, theirs))

    def _set(self, state: NamedTuple) -> None:
        with torch.inference_mode(False):  # what is allocated in inference mode cannot be updated outside it
            super()._set(type(state)(*(tensor.clone() for tensor in state)))

    def _reduce_states(self, incoming_state: dict[str, Any]) -> None:
        theirs = FrequencyMoments(*(incoming_state[name].to(self.samples.device) for name in FrequencyMoments._fields))
        super()._reduce_states(incoming_state)
        if theirs.weights.numel():
            self._merge(theirs)

    def _merge_ranks(self, group: Any) -> None:
        shapes = gather(None if (own := self._moments) is None else _shape_of(own), group)
        seen = {rank: _described(*shape) for rank, shape in enumerate(shapes) if shape is not None}
        if len(set(seen.values())) > 1:
            raise RuntimeError(f"Expected maps of the same shape on every rank, got {seen} by rank.")
        everyone = (FrequencyMoments(*each) for each in gather_tensors(self._get(FrequencyMoments), group))
        if seen:
            self._set(reduce(merge_frequency_moments, (each for each in everyone if each.weights.numel())))


def _shape_of(moments: FrequencyMoments) -> tuple[int, int, int, int]:
    """Return height, width and the channels of both sides."""
    height, _, channels = moments.mean.shape
    x_channels = int(moments.x_channels)
    return height, int(moments.weights[0].sum()), x_channels, channels - x_channels


def _described(height: int, width: int, x_channels: int, y_channels: int) -> str:
    return f"{x_channels} and {y_channels} channels of {height}×{width}"
