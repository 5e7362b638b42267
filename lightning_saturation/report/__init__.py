"""What a window of saturation says: plain data in, plain data out."""

from lightning_saturation.report.convergent import ConvergentLearning, LayerMatch
from lightning_saturation.report.diagnosis import Diagnosis, Finding
from lightning_saturation.report.dimension import DimensionReport, LayerDimension
from lightning_saturation.report.dynamics import LearningDynamics
from lightning_saturation.report.layer import LayerStatistics
from lightning_saturation.report.operators import SpectrumReport
from lightning_saturation.report.report import SaturationReport
from lightning_saturation.report.series import saturation_series
from lightning_saturation.report.similarity import SimilarityMatrix
from lightning_saturation.report.widths import WidthEstimates

__all__ = [
    "ConvergentLearning",
    "Diagnosis",
    "DimensionReport",
    "Finding",
    "LayerDimension",
    "LayerMatch",
    "LayerStatistics",
    "LearningDynamics",
    "SaturationReport",
    "SimilarityMatrix",
    "SpectrumReport",
    "WidthEstimates",
    "saturation_series",
]
