"""State around the functions: torchmetrics that merge across batches and ranks."""

from lightning_saturation.metrics.covariance import Covariance
from lightning_saturation.metrics.dft_cca import DFTCCA
from lightning_saturation.metrics.saturation import Saturation
from lightning_saturation.metrics.similarity import PWCCA, SVCCA, ClassSimilarity, LinearCKA, Procrustes
from lightning_saturation.metrics.sketched import SketchedCovariance
from lightning_saturation.metrics.two_nn import TwoNN

__all__ = [
    "DFTCCA",
    "PWCCA",
    "SVCCA",
    "ClassSimilarity",
    "Covariance",
    "LinearCKA",
    "Procrustes",
    "Saturation",
    "SketchedCovariance",
    "TwoNN",
]
