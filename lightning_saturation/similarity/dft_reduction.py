"""Moments of feature maps over all ranks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_saturation.covariance.ranks import all_reduce, gather, wire_device
from lightning_saturation.similarity.dft import FrequencyMoments, half_plane_weights


def shape_of(moments: FrequencyMoments) -> tuple[int, int, int, int]:
    """Return height, width and the channels of both sides."""
    height, _, channels = moments.mean.shape
    x_channels = int(moments.x_channels)
    return height, int(moments.weights[0].sum()), x_channels, channels - x_channels


def described(moments: FrequencyMoments) -> str:
    """Return the shapes in words."""
    height, width, x_channels, y_channels = shape_of(moments)
    return f"{x_channels} and {y_channels} channels of {height}×{width}"


def all_reduce_frequency_moments(moments: FrequencyMoments | None, *, group: Any = None) -> FrequencyMoments | None:
    """Return the moments over all ranks: means first, then scatters about the common mean; a collective call."""
    own_shape = None if moments is None else (*shape_of(moments), described(moments))
    seen = {rank: shape for rank, shape in enumerate(gather(own_shape, group)) if shape is not None}
    if len(set(seen.values())) > 1:
        shapes = {rank: shape[-1] for rank, shape in seen.items()}
        raise RuntimeError(f"Expected maps of the same shape on every rank, got {shapes} by rank.")
    if not seen:
        return None
    height, width, x_channels, y_channels, _ = next(iter(seen.values()))
    device = wire_device(group)
    weights = half_plane_weights(height, width, device=device)
    own = _nothing(weights, x_channels, x_channels + y_channels) if moments is None else _moved(moments, device)
    first = torch.cat([own.samples[None], torch.view_as_real(own.mean * own.samples).flatten()])
    first = all_reduce(first, group, in_place=True)
    samples = first[0].round().long()
    mean = torch.view_as_complex(first[1:].clone().view(*own.mean.shape, 2)) / samples.clamp(min=1)
    apart = own.mean - mean
    scatter = own.scatter + apart[..., None] * apart[..., None, :].conj() * own.samples
    merged = FrequencyMoments(samples, mean, all_reduce(scatter, group, in_place=True), weights, own.x_channels)
    return merged if moments is None else _moved(merged, moments.mean.device)


def _nothing(weights: Tensor, x_channels: int, channels: int) -> FrequencyMoments:
    mean = torch.zeros(*weights.shape, channels, dtype=torch.complex128, device=weights.device)
    scatter = torch.zeros(*mean.shape, channels, dtype=torch.complex128, device=weights.device)
    samples, split = torch.tensor([0, x_channels], device=weights.device)
    return FrequencyMoments(samples, mean, scatter, weights, split)


def _moved(moments: FrequencyMoments, device: torch.device) -> FrequencyMoments:
    return FrequencyMoments(*(part.to(device) for part in moments))
