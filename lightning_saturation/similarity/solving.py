"""From sums over pairs of layers to one similarity for each pair."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from lightning_saturation.covariance.ranks import all_reduce, rank_and_world
from lightning_saturation.similarity.cca import correlate, weigh, whiten
from lightning_saturation.similarity.dft import correlate_frequencies, half_plane_weights, whiten_frequencies
from lightning_saturation.similarity.kernel_alignment import linear_cka, procrustes
from lightning_saturation.similarity.paired_sums import Pair, PairedSums
from lightning_saturation.similarity.views import Key, Method


def solve(
    sums: PairedSums, pairs: Sequence[Pair], *, method: Method, delta: float | None, group: Any = None
) -> list[float]:
    """Return the similarity of every one of ``pairs``; each rank solves its share, and all get all.

    Each layer is whitened once, however many pairs it is in. Warnings about too few samples become one.
    """
    rank, world = rank_and_world(group)
    value = _solver(sums, method, delta)
    values = torch.zeros(len(pairs), dtype=torch.float64)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for index in range(rank, len(pairs), world):
            values[index] = value(pairs[index])
    few = [str(warning.message) for warning in caught if "too few" in str(warning.message)]
    for other in caught:
        if "too few" not in str(other.message):
            warnings.warn(other.message, other.category, stacklevel=3)
    if few:
        warnings.warn(f"In {len(few)} of {len(pairs)} pairs of layers: {few[0]}", stacklevel=3)
    return all_reduce(values, group).tolist()


def _solver(sums: PairedSums, method: Method, delta: float | None) -> Callable[[Pair], Tensor]:
    if method == "dft_cca":
        return _frequency_solver(sums, delta)
    if method in ("cka", "debiased_cka"):
        return lambda pair: linear_cka(sums.moments(pair), debiased=method == "debiased_cka")
    if method == "procrustes":
        return lambda pair: procrustes(sums.moments(pair), normalize=True)

    @cache
    def white(key: Key) -> Tensor:
        return whiten(sums.scatter(key)[0], delta=delta)

    def value(pair: Pair) -> Tensor:
        moments = sums.moments(pair)
        found = correlate(moments, white(pair[0]), white(pair[1]))
        return found.mean if method == "svcca" else weigh(moments, found).mean

    return value


def _frequency_solver(sums: PairedSums, delta: float | None) -> Callable[[Pair], Tensor]:
    def weights(key: Key) -> Tensor:
        height, width = key.size or (1, 1)
        return half_plane_weights(height, width, device=sums.scatter(key).device).flatten()[None]

    @cache
    def white(key: Key) -> tuple[Tensor, Tensor]:
        vectors, kept = whiten_frequencies(sums.scatter(key)[None], weights(key), delta=delta)
        return vectors, kept

    def value(pair: Pair) -> Tensor:
        left, right = pair
        cross = sums.cross(pair)[None]
        return correlate_frequencies(white(left), white(right), cross, weights(left), sums.samples(left)).mean

    return value
