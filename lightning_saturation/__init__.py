"""See what the layers of a network do while it trains."""

from lightning_saturation.capture.capture import capture
from lightning_saturation.capture.kinds import register_layer
from lightning_saturation.capture.select import select_layers
from lightning_saturation.compression.compress import compress
from lightning_saturation.compression.projection import project_outputs
from lightning_saturation.covariance.covariance import Covariance
from lightning_saturation.dimension.measure import measure_dimension
from lightning_saturation.dimension.metric import TwoNN
from lightning_saturation.dimension.monitor import DimensionMonitor
from lightning_saturation.dimension.report import DimensionReport
from lightning_saturation.freezing.freezing import FreezeTraining
from lightning_saturation.matching.measure import match_networks
from lightning_saturation.matching.patches import UnitPatches, strongest_patches
from lightning_saturation.matching.report import ConvergentLearning
from lightning_saturation.operators.measure import measure_spectrum
from lightning_saturation.operators.monitor import SpectrumMonitor
from lightning_saturation.operators.report import SpectrumReport
from lightning_saturation.saturation.measure import measure_saturation
from lightning_saturation.saturation.metric import Saturation
from lightning_saturation.saturation.monitor import SaturationMonitor
from lightning_saturation.saturation.report.report import SaturationReport
from lightning_saturation.saturation.report.windows import replay
from lightning_saturation.similarity.compare import compare_representations
from lightning_saturation.similarity.dft_metric import DFTCCA
from lightning_saturation.similarity.metrics import PWCCA, SVCCA, ClassSimilarity, LinearCKA, Procrustes
from lightning_saturation.similarity.monitor import SimilarityMonitor
from lightning_saturation.similarity.report import LearningDynamics, SimilarityMatrix
from lightning_saturation.stopping.stopping import SaturationStopping
from lightning_saturation.sweeping.outcome import SweepOutcome
from lightning_saturation.sweeping.sweep import sweep

__version__ = "0.1.0"

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
    "SweepOutcome",
    "TwoNN",
    "UnitPatches",
    "capture",
    "compare_representations",
    "compress",
    "match_networks",
    "measure_dimension",
    "measure_saturation",
    "measure_spectrum",
    "project_outputs",
    "register_layer",
    "replay",
    "select_layers",
    "strongest_patches",
    "sweep",
]
