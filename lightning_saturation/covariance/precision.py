"""Products of rows where float64 arithmetic is slow: float32 that neither TF32 nor autocast can spoil."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_saturation.shapes import Float

SINGLE_ROWS = 1024
"""Rows per float32 product: sums of more terms lose digits, sums of fewer do less arithmetic per byte."""

# Data-centre GPUs run float64 at a half of float32 (P100, V100, A100, H100); all others at a 32nd or a 64th.
_FAST_DOUBLE = frozenset({(6, 0), (7, 0), (8, 0), (9, 0), (10, 0)})


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
