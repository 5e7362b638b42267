"""An even, deterministic choice of some rows of a stream whose length need not be known."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightning_saturation.shapes import Int

# Looking into a batch costs the same whatever is taken of it; so many of a long window's batches are worth it.
_LOOKS = 64
_WORD = 2**64 - 1
_STARTS = 2**63  # numbers of the places where groups begin, beyond those of all strata


class Thinning(NamedTuple):
    """Where a thinned stream is: one row is taken of every ``stride``, so far out of ``seen``.

    Every row taken stands for ``stride`` rows. ``budget`` rows are taken at most while the stride stays what it was at
    first; a stream longer than foreseen doubles it, as often as needed. The first ``grouped`` strata are taken
    together, ``group`` at a time, from rows that are ``near`` apart; the others one by one.
    """

    budget: int
    stride: int = 1
    seen: int = 0
    seed: int = 0
    group: int = 1
    near: int = 0
    grouped: int = 0


def thinning(
    budget: int,
    *,
    expected: int | None = None,
    batches: int | None = None,
    positions: int | None = None,
    seed: int = 0,
) -> Thinning:
    """Return the start of a stream of which at most ``budget`` rows are to be taken.

    ``expected`` is how many rows will come, if somebody knows: then the stride is right from the start. If nobody does,
    it doubles whenever the rows seen, divided by it, exceed the budget: the end of the stream is thinned more than the
    beginning, and rows must be weighted by the stride at which they were taken. About
    ``budget * (1 + log2(rows / budget) / 2)`` rows are then taken instead of ``budget``; their weight is that of
    ``budget`` rows at the last stride.

    Where also the number of ``batches`` and that of ``positions`` per sample are known, rows of many batches come from
    about 64 to 192 of them, spread evenly, so that most need not be looked at. They are still at least ``positions``
    apart on average, hence of different samples: fewer batches are looked into only where samples are more than rows.

    >>> thinning(100, expected=1000).stride
    10
    """
    if budget < 1:
        raise ValueError(f"Expected a `budget` of at least 1 row, got {budget}.")
    if expected is not None and expected < 0:
        raise ValueError(f"Expected `expected` to be a number of rows or None, got {expected}.")
    stride = max(1, -(-(expected or 0) // budget))
    state = Thinning(budget, stride, seed=seed)
    if not (expected and batches and positions):
        return state
    strata = expected // stride
    group, near = strata // _LOOKS, max(positions, -(-stride * _LOOKS // batches))
    if group < 2 or near >= stride:
        return state
    return state._replace(group=group, near=near, grouped=strata // group * group)


def take(state: Thinning, rows: int) -> tuple[Thinning, Int[Tensor, " taken"] | None]:
    """Return the state after the next ``rows`` rows, and which of them to take; None stands for all of them.

    The stream is cut into strata of ``stride`` rows, and one row is taken of each, at a place that a hash of ``seed``
    and the stratum's number gives. No rule with a period does: every n-th row is the same pixel of every image where n
    and the number of pixels have common factors, and sequences of low discrepancy resonate with other numbers. Every
    row has the same chance ``1/stride``, the same on every rank, device and for every split into batches, and nothing
    is drawn from a random generator.

    Strata in groups share a stretch of rows, ``near`` per stratum, that begins anywhere in the group, and goes on at
    the group's beginning where it would leave it; so again every row has the same chance.

    The rows taken weigh ``stride`` of the new state.

    >>> take(thinning(4, expected=12), 12)[1]
    tensor([ 1,  3,  7, 10])
    """
    if rows < 0:
        raise ValueError(f"Expected `rows` to be a number of rows, got {rows}.")
    begin, end = state.seen, state.seen + rows
    if end > state.budget * state.stride:
        stride = state.stride
        while end > state.budget * stride:
            stride *= 2
        state = state._replace(stride=stride, grouped=0)
    after = state._replace(seen=end)
    if state.stride == 1:
        return after, None
    grouped = state.grouped * state.stride
    parts = _in_groups(state, begin, min(end, grouped))
    if end > grouped:
        parts.append(_places(state.seed, max(begin, grouped) // state.stride, -(-end // state.stride), state.stride))
    places = np.concatenate([*parts, np.empty(0, np.int64)]) - begin
    return after, torch.from_numpy(places[(places >= 0) & (places < rows)])


def next_row(state: Thinning) -> int:
    """Return the number of a row before which none is taken, at least ``state.seen``; as many rows need no look.

    >>> state = thinning(4, expected=12)
    >>> next_row(state), next_row(take(state, 2)[0])
    (1, 3)
    """
    seen, stride, grouped = state.seen, state.stride, state.grouped * state.stride
    if seen >= grouped:
        stratum = seen // stride
        places = [index * stride + int(_place(state.seed, index, stride)) for index in (stratum, stratum + 1)]
        found = next(place for place in places if place >= seen)
    else:
        length, stretch = state.group * stride, state.group * state.near
        found = grouped
        for offset in range(seen // length * length, grouped, length):
            start = int(_place(state.seed, _STARTS + offset // length, length))
            at = max(seen - offset, 0)
            if at < start + stretch:
                found = offset + (at if at < start + stretch - length else max(start, at))
                break
    # Beyond the budget the stride doubles, whether or not a row is due.
    return min(found, max(state.budget * stride, seen))


def _in_groups(state: Thinning, begin: int, end: int) -> list[Int[np.ndarray, " places"]]:
    """Return places of rows in groups, among them all from ``begin`` to ``end``."""
    length, stretch = state.group * state.stride, state.group * state.near
    parts = []
    for group in range(begin // length, -(-end // length)):
        offset = group * length
        start = int(_place(state.seed, _STARTS + group, length))
        low, high = max(begin - offset, 0), min(end - offset, length)
        # A stretch that leaves the group at its end goes on at its beginning.
        for shift in (start - length, start):
            first = max(low - shift, 0) // state.near
            last = -(-min(high - shift, stretch) // state.near)
            if first < last:
                places = _places(state.seed, first, last, state.near, stratum=group * state.group) + shift
                parts.append(places[(places >= 0) & (places < length)] + offset)
    return parts


def _places(seed: int, first: int, last: int, span: int, *, stratum: int = 0) -> Int[np.ndarray, " strata"]:
    """Return, for strata from ``first`` to ``last`` of ``span`` rows, which row is taken; counted from ``stratum``."""
    strata = np.arange(first, last, dtype=np.uint64)
    places: np.ndarray = (strata * np.uint64(span) + _place(seed, strata + np.uint64(stratum), span)).astype(np.int64)
    return places


def _place(seed: int, index: Any, span: int) -> Any:
    """Return a number in ``range(span)`` that depends on ``seed`` and ``index`` as if drawn at random.

    ``index`` is an integer, or an array of type uint64, which gives one.

    Source: Steele, Lea and Flood, *Fast splittable pseudorandom number generators*, 2014 (SplitMix64).
    """
    z = (index * 0x9E3779B97F4A7C15 + ((seed + 1) * 0xD1B54A32D192ED03 & _WORD)) & _WORD
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _WORD
    return ((z ^ (z >> 31)) >> 32) * span >> 32
