"""Canonical correlations of feature maps, one frequency at a time."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_saturation.covariance.spectrum import check_delta, intrinsic_dimension
from lightning_saturation.shapes import Float, Int
from lightning_saturation.similarity.cca import RESIDUE, unit_scale, warn_if_few_samples


class FrequencyMoments(NamedTuple):
    """Moments of the channels of two sets of maps at every frequency, complex128; they merge like all others.

    Maps are real, so only half of the frequencies are kept: ``mean`` (height, width // 2 + 1, channels) and ``scatter``
    (height, width // 2 + 1, channels, channels), channels of ``x`` first; ``weights`` says for how many each stands.
    """

    samples: Int[Tensor, ""]
    mean: Tensor
    scatter: Tensor
    weights: Float[Tensor, "height half"]
    x_channels: Int[Tensor, ""]


class FrequencyCCA(NamedTuple):
    """Canonical correlations at every frequency, largest first, of which the first ``kept`` mean something.

    A frequency stands for ``weights`` (1 or 2) of the height × width frequencies. ``mean`` is over all kept ones.
    """

    correlations: Float[Tensor, "height half pairs"]
    kept: Int[Tensor, "height half"]
    weights: Float[Tensor, "height half"]
    mean: Float[Tensor, ""]

    @property
    def spectrum(self) -> Tensor:
        """All kept correlations with their multiplicity, largest first: what CCA of the flattened maps would list."""
        kept = torch.arange(self.correlations.shape[-1], device=self.kept.device) < self.kept[..., None]
        repeats = self.weights.long()[..., None].expand_as(kept)[kept]
        return self.correlations[kept].repeat_interleave(repeats).sort(descending=True).values


def dft_cca(
    x: Float[Tensor, "x_samples x_channels x_height x_width"] | FrequencyMoments,
    y: Float[Tensor, "y_samples y_channels y_height y_width"] | None = None,
    *,
    delta: float | None = None,
    resize: bool = False,
) -> FrequencyCCA:
    """Return the canonical correlations of feature maps (samples, channels, height, width), frequency by frequency.

    On images whose circular shifts are as likely as themselves, this equals CCA of the flattened maps, where every
    channel at every pixel is a feature, at a tiny part of its cost: the covariance falls into one block of channels ×
    channels for each frequency. Elsewhere it ignores correlations between frequencies. ``delta`` keeps the directions
    that hold this share of the variance over all frequencies together; None keeps all but rounding residue, whatever
    the scales of channels. Maps of different size are an error unless ``resize`` cuts the larger ones down to the
    common low frequencies. ``x`` may hold moments instead. Raises ``ValueError`` for other shapes or rows of different
    samples.

    Source: Raghu et al., *SVCCA*, section 3.1 and theorem 1.
    """
    if isinstance(x, FrequencyMoments):
        if y is not None:
            raise TypeError("Expected no `y` beside moments in `x`, which hold both sides.")
        moments = x
    elif y is None:
        raise TypeError("Expected maps `y` (samples, channels, height, width) beside maps `x`.")
    else:
        moments = frequency_moments(x, y, resize=resize)
        if (missing := len(x) - int(moments.samples)) > 0:
            warnings.warn(f"{missing} of {len(x)} samples hold NaN or infinity and are left out.", stacklevel=2)
    split, scatter, weights = int(moments.x_channels), moments.scatter, moments.weights
    return correlate_frequencies(
        whiten_frequencies(scatter[..., :split, :split], weights, delta=delta),
        whiten_frequencies(scatter[..., split:, split:], weights, delta=delta),
        scatter[..., :split, split:],
        weights,
        int(moments.samples),
    )


def correlate_frequencies(
    x_white: tuple[Tensor, Tensor], y_white: tuple[Tensor, Tensor], cross: Tensor, weights: Tensor, samples: int
) -> FrequencyCCA:
    """Return CCA at every frequency given ``whiten_frequencies`` of both sides, which many pairs may share."""
    kept = torch.minimum(x_white[1], y_white[1])
    correlations = torch.linalg.svdvals(x_white[0].mH @ cross @ y_white[0]).clamp(0, 1)
    most = int((x_white[1] + y_white[1]).argmax())  # of the frequency that asks for most samples
    warn_if_few_samples(samples, int(x_white[1].flatten()[most]), int(y_white[1].flatten()[most]))
    return FrequencyCCA(correlations, kept, weights, (correlations.sum(-1) * weights).sum() / (kept * weights).sum())


def frequency_moments(
    x: Float[Tensor, "x_samples x_channels x_height x_width"],
    y: Float[Tensor, "y_samples y_channels y_height y_width"],
    *,
    resize: bool = False,
) -> FrequencyMoments:
    """Return the moments of maps ``x`` and ``y`` by frequency; samples with NaN or infinity are left out."""
    x, y = _same_size(x.detach().double(), y.detach().double(), resize)
    maps = torch.cat([x, y], dim=1)
    finite = maps.flatten(1).isfinite().all(1)
    samples = finite.sum()
    maps = torch.where(finite[:, None, None, None], maps, 0.0)
    spectra = _half_spectra(maps)
    mean = spectra.sum(-1) / samples.clamp(min=1)
    centred = torch.where(finite, spectra - mean[..., None], 0.0)
    weights = half_plane_weights(*maps.shape[-2:], device=maps.device)
    return FrequencyMoments(samples, mean, centred @ centred.mH, weights, torch.tensor(x.shape[1]))


def _half_spectra(maps: Tensor) -> Tensor:
    """Return the spectra of ``maps`` as (height, width // 2 + 1, channels, samples)."""
    if not len(maps):  # the transform refuses an empty batch
        _, channels, height, width = maps.shape
        return torch.zeros(height, width // 2 + 1, channels, 0, dtype=torch.complex128, device=maps.device)
    spectra: Tensor = torch.fft.rfft2(maps, norm="ortho")
    return spectra.permute(2, 3, 1, 0)


def merge_frequency_moments(first: FrequencyMoments, second: FrequencyMoments) -> FrequencyMoments:
    """Return the moments of both sets of maps together; either may be empty."""
    samples = first.samples + second.samples
    share = second.samples.double() / samples.clamp(min=1)  # two integers would divide in float32
    difference = second.mean - first.mean
    apart = difference[..., None] * difference[..., None, :].conj() * (first.samples * share)
    return first._replace(
        samples=samples, mean=first.mean + difference * share, scatter=first.scatter + second.scatter + apart
    )


def half_plane_weights(height: int, width: int, *, device: torch.device | None = None) -> Tensor:
    """Return for how many of the height × width frequencies each of ``rfft2`` stands: itself and, mostly, its mirror.

    >>> half_plane_weights(1, 4)
    tensor([[1., 2., 1.]], dtype=torch.float64)
    """
    weights = torch.full((height, width // 2 + 1), 2.0, dtype=torch.float64, device=device)
    weights[:, 0] = 1
    if width % 2 == 0:
        weights[:, -1] = 1
    return weights


def fourier_resize(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return ``maps`` (…, *size) with only the low frequencies that fit a smaller ``size``; 1 is the mean.

    Raises ``ValueError`` for a larger size: no frequencies are made up.
    """
    for axis, (old, new) in enumerate(zip(maps.shape[-len(size) :], size, strict=True), start=-len(size)):
        if not 0 < new <= old:
            raise ValueError(f"Expected `size` from 1 to {tuple(maps.shape[-len(size) :])}, got {size}.")
        if new == old:
            continue
        low = torch.fft.rfft(maps, dim=axis).narrow(axis, 0, new // 2 + 1).clone()
        if new % 2 == 0:
            # The last frequency of an even size stands for itself and its mirror, which fold into one.
            low.select(axis, -1).mul_(2)
        maps = torch.fft.irfft(low, n=new, dim=axis) * (new / old)
    return maps


def _same_size(x: Tensor, y: Tensor, resize: bool) -> tuple[Tensor, Tensor]:
    for name, maps in (("x", x), ("y", y)):
        if maps.ndim != 4:
            raise ValueError(f"Expected `{name}` (samples, channels, height, width), got {tuple(maps.shape)}.")
    if len(x) != len(y):
        raise ValueError(f"Expected `x` and `y` with maps of the same samples, got {len(x)} and {len(y)}.")
    if x.shape[2:] == y.shape[2:]:
        return x, y
    if not resize:
        raise ValueError(
            f"Expected `x` and `y` of one height and width, got {tuple(x.shape[2:])} and {tuple(y.shape[2:])};"
            " `resize=True` cuts the larger maps down to the common low frequencies."
        )
    size = tuple(min(a, b) for a, b in zip(x.shape[2:], y.shape[2:], strict=True))
    return fourier_resize(x, size), fourier_resize(y, size)


def whiten_frequencies(scatter: Tensor, weights: Tensor, *, delta: float | None = None) -> tuple[Tensor, Tensor]:
    """Return whitening directions at every frequency, zeros for those that are not kept, and how many are."""
    power = (scatter.diagonal(dim1=-2, dim2=-1).real * weights[..., None]).flatten(0, -2).sum(0)
    scale = unit_scale(power) if delta is None else torch.ones_like(power)
    eigenvalues, vectors = torch.linalg.eigh(scale[:, None] * scatter * scale)
    largest = eigenvalues.max().clamp(min=0)
    size = int(weights.sum()) * eigenvalues.shape[-1]
    keep = eigenvalues > max(RESIDUE, size * torch.finfo(torch.float64).eps) * largest
    if delta is not None:
        check_delta(delta)
        everywhere = eigenvalues.flatten().repeat_interleave(
            weights.long().flatten().repeat_interleave(scatter.shape[-1])
        )
        needed = intrinsic_dimension(everywhere, delta=delta)
        if needed:
            keep &= eigenvalues >= everywhere.sort(descending=True).values[needed - 1]
    return scale[:, None] * vectors * torch.where(keep, eigenvalues, torch.inf).rsqrt()[..., None, :], keep.sum(-1)
