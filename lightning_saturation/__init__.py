"""See what the layers of a network do while it trains."""

from lightning_saturation.callbacks import SaturationMonitor, SaturationStopping
from lightning_saturation.capture import capture, select_layers
from lightning_saturation.metrics import (
    DFTCCA,
    PWCCA,
    SVCCA,
    ClassSimilarity,
    Covariance,
    LinearCKA,
    Procrustes,
    Saturation,
)
from lightning_saturation.report import SaturationReport, SimilarityMatrix
from lightning_saturation.tracking import compare_representations, measure_saturation

__all__ = [
    "DFTCCA",
    "PWCCA",
    "SVCCA",
    "ClassSimilarity",
    "Covariance",
    "LinearCKA",
    "Procrustes",
    "Saturation",
    "SaturationMonitor",
    "SaturationReport",
    "SaturationStopping",
    "SimilarityMatrix",
    "capture",
    "compare_representations",
    "measure_saturation",
    "select_layers",
]
