"""The eigenproblems of all layers, shared among the ranks."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from lightning_saturation.functional.eigen import DENSE_BELOW, TopSpectrum, dense_spectra, top_spectrum
from lightning_saturation.functional.moments import Moments, covariance
from lightning_saturation.metrics.reduction import is_distributed, wire_device


def spectra_over_ranks(
    moments: Mapping[str, Moments], *, delta: float = 0.99, group: Any = None
) -> dict[str, TopSpectrum | None]:
    """Return every layer's spectrum on the CPU, bitwise the same on all ranks; None where that failed.

    Of narrow layers it holds all eigenvalues, of wide ones at least those that decide the intrinsic dimension.

    ``moments`` must already be the same on all ranks. Each rank solves its share; one all-reduce brings them together.
    """
    rank, world = (dist.get_rank(group), dist.get_world_size(group)) if is_distributed(group) else (0, 1)
    mine = _shares({name: len(m.mean) for name, m in moments.items()}, world)[rank]
    together = _solve_together({name: moments[name] for name in mine})
    solved = {
        name: _pack(together[name] if name in together else _solve(name, m, delta), len(m.mean))
        if name in mine
        else torch.zeros(len(m.mean) + 3, dtype=torch.float64)
        for name, m in moments.items()
    }
    if world > 1 and solved:
        packed = torch.cat(list(solved.values())).to(wire_device(group))
        dist.all_reduce(packed, group=group)
        parts = torch.split(packed.cpu(), [len(part) for part in solved.values()])
        solved = dict(zip(solved, parts, strict=True))
    return {name: _unpack(part) for name, part in solved.items()}


def _shares(widths: Mapping[str, int], world: int) -> list[set[str]]:
    """Return which layers each rank solves: the largest first, each to the rank with the least to do (width³)."""
    shares: list[set[str]] = [set() for _ in range(world)]
    costs = [0] * world
    for name in sorted(widths, key=lambda name: (-widths[name], name)):
        rank = costs.index(min(costs))
        shares[rank].add(name)
        costs[rank] += widths[name] ** 3
    return shares


def _solve_together(moments: Mapping[str, Moments]) -> dict[str, TopSpectrum]:
    """Return the spectra of narrow layers on a GPU, which solves many at once; {} where one of them fails."""
    narrow = {name: m for name, m in moments.items() if m.mean.is_cuda and len(m.mean) < DENSE_BELOW}
    try:
        return dict(zip(narrow, dense_spectra([covariance(m) for m in narrow.values()]), strict=True))
    except (ValueError, RuntimeError):
        return {}  # one by one, so that the others are not missing too


def _solve(name: str, moments: Moments, delta: float) -> TopSpectrum | None:
    """Return the spectrum, or None where the problem cannot be solved."""
    try:
        return top_spectrum(covariance(moments), delta=delta)
    except (ValueError, RuntimeError) as error:
        warnings.warn(f"The saturation of layer {name!r} is missing in this window: {error}", stacklevel=2)
        return None


def _pack(spectrum: TopSpectrum | None, features: int) -> Tensor:
    """Return a vector (features + 3,) that adds up with zeros of other ranks; NaN stands for None."""
    if spectrum is None:
        return torch.full((features + 3,), torch.nan, dtype=torch.float64)
    packed = torch.zeros(features + 3, dtype=torch.float64)
    known = len(spectrum.eigenvalues)
    packed[:3] = torch.tensor([known, spectrum.total, spectrum.squares], dtype=torch.float64)
    packed[3 : 3 + known] = spectrum.eigenvalues.cpu()
    return packed


def _unpack(packed: Tensor) -> TopSpectrum | None:
    if packed.isnan().any():
        return None
    known, total, squares = packed[:3].tolist()
    return TopSpectrum(packed[3 : 3 + round(known)].clone(), len(packed) - 3, total, squares)
