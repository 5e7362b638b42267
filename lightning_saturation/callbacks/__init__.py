"""When: the Trainer's side of everything."""

from lightning_saturation.callbacks.dimension import DimensionMonitor
from lightning_saturation.callbacks.freezing import FreezeTraining
from lightning_saturation.callbacks.monitor import SaturationMonitor
from lightning_saturation.callbacks.similarity import SimilarityMonitor
from lightning_saturation.callbacks.spectrum import SpectrumMonitor
from lightning_saturation.callbacks.stopping import SaturationStopping

__all__ = ["DimensionMonitor", "SaturationMonitor", "SaturationStopping", "SpectrumMonitor"]

__all__ = [
    "DimensionMonitor",
    "FreezeTraining",
    "SaturationMonitor",
    "SaturationStopping",
    "SimilarityMonitor",
]
