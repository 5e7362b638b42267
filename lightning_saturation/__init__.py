"""See what the layers of a network do while it trains."""

from lightning_saturation.callbacks import (
    DimensionMonitor,
    FreezeTraining,
    SaturationMonitor,
    SaturationStopping,
    SimilarityMonitor,
    SpectrumMonitor,
)
from lightning_saturation.capture import capture, select_layers
from lightning_saturation.compression import compress, project_outputs
from lightning_saturation.metrics import (
    DFTCCA,
    PWCCA,
    SVCCA,
    ClassSimilarity,
    Covariance,
    LinearCKA,
    Procrustes,
    Saturation,
    TwoNN,
)
from lightning_saturation.report import (
    ConvergentLearning,
    DimensionReport,
    LearningDynamics,
    SaturationReport,
    SimilarityMatrix,
    SpectrumReport,
)
from lightning_saturation.tracking import (
    compare_representations,
    match_networks,
    measure_dimension,
    measure_saturation,
    measure_spectrum,
)

__all__ = [
    "DFTCCA",
    "PWCCA",
    "SVCCA",
    "ClassSimilarity",
    "ConvergentLearning",
    "Covariance",
    "DimensionMonitor",
    "DimensionReport",
    "FreezeTraining",
    "LearningDynamics",
    "LinearCKA",
    "Procrustes",
    "Saturation",
    "SaturationMonitor",
    "SaturationReport",
    "SaturationStopping",
    "SimilarityMatrix",
    "SimilarityMonitor",
    "SpectrumMonitor",
    "SpectrumReport",
    "TwoNN",
    "capture",
    "compare_representations",
    "compress",
    "match_networks",
    "measure_dimension",
    "measure_saturation",
    "measure_spectrum",
    "project_outputs",
    "select_layers",
]
