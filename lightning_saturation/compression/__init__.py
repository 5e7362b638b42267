"""Layers restricted to the directions that their outputs use: low-rank surgery with an undo, and projections."""

from lightning_saturation.compression.compress import Compression, compress
from lightning_saturation.compression.projection import project_outputs

__all__ = ["Compression", "compress", "project_outputs"]
