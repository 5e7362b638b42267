"""An even, deterministic choice of some rows of a stream whose length need not be known."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_saturation.shapes import Int

# Multiples of 2³² / golden ratio, modulo 2³², fill the interval more evenly than any other such sequence.
_GOLDEN = 2654435769
_WORD = 2**32
_FEW = 64


class Thinning(NamedTuple):
    """Where a thinned stream is: one row is taken of every ``stride``, so far out of ``seen``.

    Every row taken stands for ``stride`` rows. ``budget`` rows are taken at most while the stride stays what it was at
    first; a stream longer than foreseen doubles it, as often as needed.
    """

    budget: int
    stride: int = 1
    seen: int = 0


def thinning(budget: int, *, expected: int | None = None) -> Thinning:
    """Return the start of a stream of which at most ``budget`` rows are to be taken.

    ``expected`` is how many rows will come, if somebody knows: then the stride is right from the start. If nobody does,
    it doubles whenever the rows seen, divided by it, exceed the budget: the end of the stream is thinned more than the
    beginning, and rows must be weighted by the stride at which they were taken. About
    ``budget * (1 + log2(rows / budget) / 2)`` rows are then taken instead of ``budget``; their weight is that of
    ``budget`` rows at the last stride.

    >>> thinning(100, expected=1000).stride
    10
    """
    if budget < 1:
        raise ValueError(f"Expected a `budget` of at least 1 row, got {budget}.")
    if expected is not None and expected < 0:
        raise ValueError(f"Expected `expected` to be a number of rows or None, got {expected}.")
    return Thinning(budget, max(1, -(-(expected or 0) // budget)))


def take(state: Thinning, rows: int) -> tuple[Thinning, Int[Tensor, " taken"] | None]:
    """Return the state after the next ``rows`` rows, and which of them to take; None stands for all of them.

    The stream is cut into strata of ``stride`` rows, and one row is taken of each: the j-th at the fractional part of
    j times the golden ratio. A plain every-n-th rule would pick the same pixel of every image whenever n and the number
    of pixels have common factors; this one visits all positions evenly whatever the shapes. Every row has the same
    chance ``1/stride`` over the sequence, the same on every rank, and no random number is drawn.

    The rows taken weigh ``stride`` of the new state.

    >>> take(thinning(4, expected=12), 12)[1]
    tensor([ 0,  4,  6, 11])
    """
    if rows < 0:
        raise ValueError(f"Expected `rows` to be a number of rows, got {rows}.")
    stride, end = state.stride, state.seen + rows
    while end > state.budget * stride:
        stride *= 2
    after = state._replace(stride=stride, seen=end)
    if stride == 1:
        return after, None
    first, last = state.seen // stride, -(-end // stride)
    if last - first <= _FEW:  # as in most batches of a long window, where six tensor operations would cost more
        few = [j * stride + ((j * _GOLDEN % _WORD) * stride // _WORD) - state.seen for j in range(first, last)]
        return after, torch.tensor([index for index in few if 0 <= index < rows], dtype=torch.int64)
    strata = torch.arange(first, last, dtype=torch.int64)
    picked = strata * stride + ((strata * _GOLDEN % _WORD) * stride // _WORD) - state.seen
    return after, picked[(picked >= 0) & (picked < rows)]
