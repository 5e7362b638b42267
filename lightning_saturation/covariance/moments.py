"""First and second moments of rows: how they accumulate without losing digits, and how they merge."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_saturation.shapes import Float, Int

SINGLE_ROWS = 1024
"""Rows per float32 product: sums of more terms lose digits, sums of fewer do less arithmetic per byte."""

# Data-centre GPUs run float64 at a half of float32 (P100, V100, A100, H100); all others at a 32nd or a 64th.
_FAST_DOUBLE = frozenset({(6, 0), (7, 0), (8, 0), (9, 0), (10, 0)})

_BLOCKED = 64
"""Features from which blocks are wide enough to run as fast as the whole."""


class Moments(NamedTuple):
    """Number, mean and centred scatter ``Σ (x − mean)(x − mean)ᵀ`` of rows, float64."""

    samples: Int[Tensor, ""]
    mean: Float[Tensor, " features"]
    scatter: Float[Tensor, "features features"]


class ShiftedSums(NamedTuple):
    """The same in the form that accumulates: sums of rows minus a fixed ``shift``, exact at any offset.

    Raw float32 sums at an offset of 1e4 lose every digit of the covariance; shifted float64 sums keep about fourteen.
    ``products`` are symmetric, and only their upper triangle is sure to be whole.
    """

    samples: Int[Tensor, ""]
    shift: Float[Tensor, " features"]
    total: Float[Tensor, " features"]
    products: Float[Tensor, "features features"]


def empty_sums(features: int, *, device: torch.device | str | None = None) -> ShiftedSums:
    """Return the ``ShiftedSums`` of no rows."""
    # A tensor allocated in inference mode could not be updated outside it, and Lightning validates in inference mode.
    with torch.inference_mode(False):
        return ShiftedSums(
            samples=torch.zeros((), dtype=torch.int64, device=device),
            shift=torch.zeros(features, dtype=torch.float64, device=device),
            total=torch.zeros(features, dtype=torch.float64, device=device),
            products=torch.zeros(features, features, dtype=torch.float64, device=device),
        )


def add_rows(
    sums: ShiftedSums, rows: Float[Tensor, "samples features"], *, weight: int = 1, single: bool | None = None
) -> Int[Tensor, ""]:
    """Add ``rows`` to ``sums`` in place and return how many were left out because they hold NaN or infinity.

    The first rows' mean becomes the shift; each row counts as often as ``weight`` says. Nothing waits for the device.
    ``single`` takes the products of shifted rows in float32, as :func:`slow_double` advises by default, and
    accumulates them in float64: relative errors of 1e-6, at any offset, instead of 1e-14.
    """
    rows, counted, total = _shifted(sums, rows.detach())
    sums.samples.add_(counted, alpha=weight)
    sums.total.add_(total, alpha=weight)
    if slow_double(rows.device) if single is None else single:
        for part in torch.split(rows, SINGLE_ROWS):
            sums.products.add_(single_products(part), alpha=weight)
    else:
        _add_products(sums.products, rows, weight)
    return len(rows) - counted


def _add_products(products: Tensor, rows: Tensor, weight: int) -> None:
    """Add at least the upper triangle of ``rowsᵀ rows``: of wide layers on a CPU by blocks, 10 of 16 products."""
    features = rows.shape[1]
    step = -(-features // 4) if features >= _BLOCKED and rows.device.type == "cpu" else features
    for start in range(0, features, step):
        products[start : start + step, start:].addmm_(rows[:, start : start + step].T, rows[:, start:], alpha=weight)


def _shifted(sums: ShiftedSums, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return float64 ``rows`` minus the shift, zero where not finite; how many are finite; and the sum of them all."""
    if rows.device.type == "cpu" == sums.shift.device.type and len(rows):
        # Looking costs nothing on the CPU, and where there is nothing to leave out it saves most passes over memory.
        ones = sums.shift.new_ones(len(rows))
        if not sums.samples:
            mean = torch.mv(rows.to(sums.shift).T, ones) / len(rows)  # several times as fast as `mean(0)`
            if math.isfinite(mean.sum()):
                sums.shift.copy_(mean)
        shifted = rows - sums.shift  # to float64 on the way
        total = torch.mv(shifted.T, ones)
        if math.isfinite(total.sum()):
            return shifted, torch.tensor(len(rows)), total
    double = rows.to(sums.products)
    finite = double.isfinite().all(dim=1)
    counted = finite.sum()
    double = torch.where(finite[:, None], double, 0.0)
    first = double.sum(0) / counted.clamp(min=1)
    sums.shift.copy_(torch.where(sums.samples > 0, sums.shift, first))
    shifted = torch.where(finite[:, None], double - sums.shift, 0.0)
    return shifted, counted, shifted.sum(0)


def from_sums(sums: ShiftedSums) -> Moments:
    """Return the moments that ``sums`` stand for."""
    offset = sums.total / sums.samples.clamp(min=1)
    products = sums.products.triu() + sums.products.triu(1).T
    return Moments(sums.samples.clone(), sums.shift + offset, products.addr_(sums.total, offset, alpha=-1))


def to_sums(moments: Moments) -> ShiftedSums:
    """Return sums that stand for ``moments`` and can go on accumulating: the mean is their shift."""
    return ShiftedSums(moments.samples, moments.mean, torch.zeros_like(moments.mean), moments.scatter)


def moments(rows: Float[Tensor, "samples features"]) -> Moments:
    """Return the moments of ``rows``; rows with NaN or infinity are left out.

    >>> moments(torch.tensor([[0.0], [2.0]])).scatter
    tensor([[2.]], dtype=torch.float64)
    """
    sums = empty_sums(rows.shape[1], device=rows.device)
    add_rows(sums, rows)
    return from_sums(sums)


def merge_moments(first: Moments, second: Moments) -> Moments:
    """Return the moments of both sets of rows together; either may be empty.

    Source: Chan, Golub and LeVeque, *Updating formulae and a pairwise algorithm for computing sample variances*, 1979.
    """
    samples = first.samples + second.samples
    share = second.samples.double() / samples.clamp(min=1)  # two integers would divide in float32
    difference = torch.where(second.samples > 0, second.mean - first.mean, torch.zeros_like(first.mean))
    scatter = first.scatter + second.scatter
    scatter = scatter.addr_(difference, difference * (first.samples * share))
    return Moments(samples, torch.where(first.samples > 0, first.mean + difference * share, second.mean), scatter)


def covariance(moments: Moments) -> Float[Tensor, "features features"]:
    """Return the unbiased covariance ``scatter / (samples − 1)``; zeros for fewer than two rows."""
    return moments.scatter / (moments.samples - 1).clamp(min=1)


def slow_double(device: torch.device) -> bool:
    """Return whether float64 matrix products on ``device`` take many times as long as float32 ones."""
    if device.type != "cuda" or torch.version.hip is not None:
        return False
    return torch.cuda.get_device_capability(device) not in _FAST_DOUBLE


def single_products(rows: Float[Tensor, "samples features"]) -> Float[Tensor, "features features"]:
    """Return ``rowsᵀ rows`` in float64, from float32 products.

    Rows are split into the eight leading bits and the rest. Products of the former are exact also where a user's
    settings turn float32 products into TF32 (ten bits), and what TF32 takes off the rest is 2⁻¹⁸ of the whole. The
    settings themselves are left alone: reading or restoring them fails where both of PyTorch's interfaces were used.
    """
    high = rows.bfloat16().float()
    low = (rows - high).float()
    with torch.autocast(rows.device.type, enabled=False):
        cross = high.T @ low
        return (high.T @ high).double() + cross.double() + cross.T.double() + (low.T @ low).double()
