"""Which rows are copies of others: what TwoNN must not take for neighbours."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_saturation.shapes import Bool, Float, Int

_BLOCK = 2**19  # numbers hashed at a time: 4 MiB
_MIX = 0x2545F4914F6CDD1D  # odd, as are all factors below: no bit is lost


def row_keys(rows: Float[Tensor, "rows features"]) -> Int[Tensor, " rows"]:
    """Return a 64-bit hash of every row: equal for rows of equal numbers, whatever their dtype, and else different.

    Two different rows share a key with a probability of about 2⁻⁶⁴. Zero and minus zero are equal.
    """
    generator = torch.Generator().manual_seed(0)
    factors = torch.randint(-(2**62), 2**62, (rows.shape[1],), generator=generator).mul_(2).add_(1).to(rows.device)
    keys = [_hash(block, factors) for block in torch.split(rows, max(1, _BLOCK // max(1, rows.shape[1])))]
    return torch.cat(keys)


def _hash(rows: Tensor, factors: Tensor) -> Tensor:
    bits = (rows.double() + 0.0).view(torch.int64)
    # The low bits of most numbers are zero, and products carry upwards only: the shifts bring high bits down.
    bits = bits * _MIX
    bits = (bits ^ (bits >> 32)) * factors
    return (bits ^ (bits >> 29)).sum(1)


def first_of_copies(keys: Int[Tensor, " rows"]) -> Bool[Tensor, " rows"]:
    """Return which rows have a key that no row before them has.

    >>> first_of_copies(row_keys(torch.tensor([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]])))
    tensor([ True,  True, False])
    """
    order = keys.sort(stable=True)
    first = torch.ones_like(keys, dtype=torch.bool)
    first[order.indices[1:]] = order.values.diff() != 0
    return first


def without_copies(rows: Float[Tensor, "rows features"]) -> Float[Tensor, "distinct features"]:
    """Return every different one of ``rows`` once, in order of first appearance; they must be finite."""
    if rows.device.type == "mps":  # it has no float64
        rows = rows.cpu()
    first = first_of_copies(row_keys(rows))
    return rows if bool(first.all()) else rows[first]
