"""The eigenvalues behind a window."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.figure import Figure

from lightning_saturation.drawing import canvas
from lightning_saturation.saturation.report.report import SaturationReport


def spectrum_figure(report: SaturationReport, *, most: int = 12) -> Figure:
    """Return the share of variance of every principal direction, log-log, one line per layer.

    Dots mark the intrinsic dimension. With more than ``most`` layers, ``most`` of them are drawn, evenly spread over
    the depth, and the title says so. A ``ValueError`` where no layer kept its eigenvalues.
    """
    spectra = report_spectra(report)
    if not spectra:
        raise ValueError(f"Expected a report with eigenvalues, got none in any of {len(report.layers)} layers.")
    names = canvas.thin(list(spectra), most)
    figure = canvas.new_figure(max(7.5, 5.5 + canvas.name_room(names)), max(4.2, 1.5 + canvas.layer_room(names)))
    axes = figure.subplots()
    for index, (name, colour) in enumerate(zip(names, canvas.colours(len(names)), strict=True)):
        share, layer = spectra[name], report.layers[name]
        style = canvas.LINE_STYLES[index % len(canvas.LINE_STYLES)]
        axes.loglog(range(1, len(share) + 1), share, style, color=colour, label=name)
        if not math.isnan(layer.intrinsic_dimension):
            k = min(int(layer.intrinsic_dimension), len(share))
            axes.plot([k], [share[k - 1]], "o", color=colour, ms=5)
    cut = f"{len(names)} of {len(spectra)} layers" if len(names) < len(spectra) else "all layers"
    axes.set_title(
        f"Spectrum ({report.stage}, epoch {report.epoch}, {cut}; dots: {100 * report.delta:g} % of variance)"
    )
    axes.set_xlabel("principal direction, by variance (1 = largest)")
    axes.set_ylabel("share of the layer's variance")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=canvas.LABEL_SIZE, frameon=False, title="layer")
    return figure


def report_spectra(report: SaturationReport) -> dict[str, np.ndarray]:
    """Return by layer the shares of variance, largest first, float64; without zeros and layers that have none."""
    spectra = {}
    for name, layer in report.layers.items():
        if layer.eigenvalues is None or not layer.total_variance > 0:
            continue
        values = layer.eigenvalues.double().cpu().numpy() / layer.total_variance
        # Rounding residue of a rank-deficient covariance: a cliff of twenty decades says nothing and hides the rest.
        spectra[name] = values[values > values[0] * np.finfo(np.float64).eps]
    return spectra
