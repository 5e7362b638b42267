"""Pure tensor functions."""

from lightning_saturation.functional.spectrum import (
    effective_rank,
    intrinsic_dimension,
    participation_ratio,
    saturation,
    stable_rank,
)

__all__ = ["effective_rank", "intrinsic_dimension", "participation_ratio", "saturation", "stable_rank"]
