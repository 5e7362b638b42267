"""The reports of a run to every logger, each in the form that it shows best."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_saturation.drawing.canvas import thin
from lightning_saturation.drawing.metric_curve import MetricCurve
from lightning_saturation.loggers.adapter import Sink
from lightning_saturation.loggers.dispatch import attempt, to_each
from lightning_saturation.saturation.files import save_reports
from lightning_saturation.saturation.plots.heatmap import heatmap_figure
from lightning_saturation.saturation.plots.spectrum import report_spectra, spectrum_figure
from lightning_saturation.saturation.plots.verdict import verdict_figure
from lightning_saturation.saturation.report.report import SaturationReport
from lightning_saturation.saturation.report.windows import by_stage, layer_names, when

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_LINES = 10
"""Windows in a profile chart."""

MOST_SPECTRA = 12
"""Layers in a spectrum chart."""

POINTS_PER_SPECTRUM = 64
"""Points of a spectrum in a chart, spread evenly over the logarithm of the rank."""


def write_reports(
    loggers: Iterable[Any],
    reports: Sequence[SaturationReport],
    *,
    step: int,
    name: str = "saturation",
    save_dir: str | os.PathLike[str] | None = None,
    metric: MetricCurve | None = None,
) -> None:
    """Write everything that ``reports``, the history of a run, say, under ``step`` and keys that start with ``name``.

    W&B gets the long-format table ``{name}/table`` and per stage ``{name}/{stage}/picture`` (the verdict, with
    ``metric`` beside saturation), ``.../heatmap``, ``.../profile`` (a line per window, at most ten), ``.../spectrum``
    (log10 axes, the last window) and ``.../diagnosis`` (text in the summary). TensorBoard gets pictures, text and
    histograms of eigenvalues, MLflow pictures, CSV and text; other loggers have the scalars; with ``save_dir`` the
    files of :func:`save_reports` are written as well. A logger that fails is named in one warning, and so is a folder.

    W&B draws the last table of a key only: call this once, when the run ends, however it ends.
    """
    reports = [report for report in reports if report.layers]
    if not reports:
        return
    stages = by_stage(reports)
    picture = cache(partial(_picture, stages, metric))

    def write(sink: Sink) -> None:
        # Tables last: an online W&B run asks its server for each of them, and without one the rest is in by then.
        kinds = () if not sink.draws else ("picture", "heatmap", *(() if sink.charts else ("spectrum",)))
        for stage, same_stage in stages.items():
            sink.text(f"{name}/{stage}/diagnosis", str(same_stage[-1].diagnose(history=same_stage)), step=step)
            for kind in kinds:
                figure = picture(stage, kind)
                if figure is not None:
                    sink.figure(f"{name}/{stage}/{kind}", figure, step=step)
        _summarise(sink, stages, step=step, name=name)

    to_each(loggers, write)
    if save_dir is not None:
        attempt(
            f"The folder {os.fspath(save_dir)!r}", lambda: save_reports(reports, save_dir, name=name, metric=metric)
        )


def write_window(
    loggers: Iterable[Any],
    report: SaturationReport,
    *,
    step: int,
    name: str = "saturation",
    history: Sequence[SaturationReport] = (),
) -> None:
    """Write table and spectra of one window under ``{name}/{stage}/window/``, and the heatmap of ``history`` so far."""
    key = f"{name}/{report.stage}/window"
    picture = cache(
        partial(_picture, {report.stage: [r for r in history if r.stage == report.stage and r.layers]}, None)
    )

    def write(sink: Sink) -> None:
        figure = picture(report.stage, "heatmap") if sink.draws else None
        if figure is not None:
            sink.figure(f"{name}/{report.stage}/heatmap", figure, step=step)
        sink.table(f"{key}/table", report.to_records(), step=step)
        _spectra(sink, report, step=step, key=key)

    if report.layers:
        to_each(loggers, write)


def _summarise(sink: Sink, stages: dict[str, list[SaturationReport]], *, step: int, name: str) -> None:
    records = [record for reports in stages.values() for report in reports for record in report.to_records()]
    sink.table(f"{name}/table", records, step=step)
    for stage, reports in stages.items():
        lines = _profile_lines(reports)
        cut = f" ({len(lines)} of {len(reports)} windows)" if len(lines) < len(reports) else ""
        sink.lines(f"{name}/{stage}/profile", lines, x="layer", title=f"Saturation by layer, {stage}{cut}", step=step)
        _spectra(sink, reports[-1], step=step, key=f"{name}/{stage}")


def _profile_lines(reports: Sequence[SaturationReport]) -> dict[str, tuple[list[float], list[float]]]:
    unit, moments = when(reports)
    names = layer_names(reports)
    digits = len(str(max(moments)))
    lines = {}
    for moment, report in thin(list(zip(moments, reports, strict=True)), MOST_LINES):
        values = report.saturation
        known = [(float(i), values[n]) for i, n in enumerate(names) if not math.isnan(values.get(n, math.nan))]
        # Padded, because charts sort their legends as text.
        lines[f"{unit} {moment:0{digits}d}"] = ([i for i, _ in known], [s for _, s in known])
    return lines


def _spectra(sink: Sink, report: SaturationReport, *, step: int, key: str) -> None:
    spectra = report_spectra(report)
    if not spectra:
        return
    shown = thin(list(spectra), MOST_SPECTRA)
    cut = f"{len(shown)} of {len(spectra)} layers" if len(shown) < len(spectra) else "all layers"
    lines = {layer: _thin_spectrum(spectra[layer]) for layer in shown}
    title = f"log10 share of variance by log10 rank, {report.stage}, epoch {report.epoch}, {cut}"
    sink.lines(f"{key}/spectrum", lines, x="log10 rank", title=title, step=step)
    for layer, statistics in report.layers.items():
        if statistics.eigenvalues is not None and layer in spectra:
            positive = statistics.eigenvalues[: len(spectra[layer])]
            sink.histogram(f"{key}/log10_eigenvalues/{layer}", positive.log10(), step=step)


def _thin_spectrum(share: np.ndarray) -> tuple[list[float], list[float]]:
    ranks = np.unique(np.geomspace(1, len(share), POINTS_PER_SPECTRUM).round().astype(int))
    return np.log10(ranks).tolist(), np.log10(share[ranks - 1]).tolist()


def _picture(
    stages: dict[str, list[SaturationReport]], metric: MetricCurve | None, stage: str, kind: str
) -> Figure | None:
    """Return the figure of one kind, or None where there is nothing to draw."""
    reports = stages[stage]
    if not reports:
        return None
    if kind == "spectrum":
        return spectrum_figure(reports[-1], most=MOST_SPECTRA) if report_spectra(reports[-1]) else None
    return heatmap_figure(reports) if kind == "heatmap" else verdict_figure(reports, metric=metric)
