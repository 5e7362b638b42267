"""What Ritz values prove about sums of eigenvalues, and about the integer read off them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# How well the sums of the top eigenvalues are known, in units of the last one counted.
_ACCURACY = 1e-6


class RitzBounds(NamedTuple):
    """Ritz ``values`` (descending, CPU) of a positive matrix with trace ``total``, and their squared residual norm.

    ``threshold`` is the sum to reach, ``rounding`` what sums of eigenvalues may be off by in float64.
    """

    values: Tensor
    defect: float
    total: float
    threshold: float
    rounding: float

    @property
    def sums(self) -> Tensor:
        """Sums of the first 0, 1, 2, … values: each a bound from below on the same sum of eigenvalues (Ky Fan)."""
        return torch.cat([self.values.new_zeros(1), self.values.cumsum(0)])

    def upper(self, j: int, ceiling: float) -> float:
        """Return the bound from above on the sum of the ``j`` largest, if no other eigenvalue exceeds ``ceiling``.

        That is the least over ε of ``‖R‖²/ε + max_a (Σ_{i≤a} θ_i + min((j−a)(μ+ε), tr C + (j−a)ε))``.
        """
        scale = max(float(self.values[0]), ceiling)
        epsilon = scale * torch.logspace(0, -14, 57, dtype=torch.float64)[:, None]
        others = torch.arange(j, -1, -1, dtype=torch.float64)
        sums = self.sums
        outside = max(self.total - float(sums[-1]), 0.0) + self.rounding
        rest = torch.minimum(others * (ceiling + epsilon), outside + others * epsilon)
        return float((self.defect / epsilon[:, 0] + (sums[: j + 1] + rest).amax(1)).min())

    def settles(self, k: int, ceiling: float) -> bool:
        """Return whether ``k`` is proven, and the sum of the ``k`` largest accurate, under ``ceiling``."""
        if k > len(self.values) or float(self.sums[k]) < self.threshold + self.rounding:
            return False
        spread = self.upper(k, ceiling) - float(self.sums[k])
        accurate = spread <= _ACCURACY * float(self.values[k - 1]) + self.rounding
        return accurate and self.upper(k - 1, ceiling) <= self.threshold - self.rounding

    def loosest_ceiling(self, k: int) -> float:
        """Return the largest ceiling, to a thousandth, under which ``k`` is settled; 0 if there is none."""
        low, high = 0.0, 2 * float(self.values[0])
        while high - low > 1e-3 * high and high > self.rounding:
            middle = (low + high) / 2
            low, high = (middle, high) if self.settles(k, middle) else (low, middle)
        return low


def is_positive(matrix: Tensor, *, block: int = 256) -> bool:
    """Return whether the Cholesky factorisation of ``matrix`` ends; only its lower triangle is read, and overwritten.

    In place and by blocks: a quarter of the dense eigenvalue solver's operations, all in matrix products, no copy.
    """
    for start in range(0, len(matrix), block):
        panel = matrix[start:, start : start + block]
        if start:
            panel.addmm_(matrix[start:, :start], matrix[start : start + block, :start].T, alpha=-1)
        factor, info = torch.linalg.cholesky_ex(panel[:block])
        if int(info) != 0:
            return False
        below = panel[block:]
        if len(below):
            below.copy_(torch.linalg.solve_triangular(factor.T, below, upper=True, left=False))
        panel[:block] = factor
    return True
