"""Reports as matplotlib figures; none of them touches pyplot's global state."""

from lightning_saturation.plots.convergent import loss_figure, match_figure
from lightning_saturation.plots.dimension import dimension_accuracy_figure, dimension_figure, dimension_history_figure
from lightning_saturation.plots.heatmap import heatmap_figure
from lightning_saturation.plots.overview import overview_figure
from lightning_saturation.plots.profile import profile_figure
from lightning_saturation.plots.similarity import similarity_figure
from lightning_saturation.plots.spectra import evolution_figure, histogram_figure, norms_figure
from lightning_saturation.plots.spectrum import spectrum_figure

__all__ = [
    "dimension_accuracy_figure",
    "dimension_figure",
    "dimension_history_figure",
    "evolution_figure",
    "heatmap_figure",
    "histogram_figure",
    "loss_figure",
    "match_figure",
    "norms_figure",
    "overview_figure",
    "profile_figure",
    "similarity_figure",
    "spectrum_figure",
]
