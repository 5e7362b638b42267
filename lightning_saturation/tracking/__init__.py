"""From a model's layers to a report, without any Trainer."""

from lightning_saturation.tracking.compare import compare_representations
from lightning_saturation.tracking.convergent import match_networks
from lightning_saturation.tracking.dimension import measure_dimension
from lightning_saturation.tracking.measure import measure_saturation
from lightning_saturation.tracking.operators import measure_spectrum, operator_layers, spectra_over_ranks
from lightning_saturation.tracking.window import Window, saturation_tracker

__all__ = [
    "Window",
    "compare_representations",
    "match_networks",
    "measure_dimension",
    "measure_saturation",
    "measure_spectrum",
    "operator_layers",
    "saturation_tracker",
    "spectra_over_ranks",
]
