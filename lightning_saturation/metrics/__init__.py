"""State around the functions: torchmetrics that merge across batches and ranks."""

from lightning_saturation.metrics.covariance import Covariance
from lightning_saturation.metrics.saturation import Saturation

__all__ = ["Covariance", "Saturation"]
