"""The reports of a run to every logger, each in the form that it shows best, and as files."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from lightning_saturation.drawing.metric_curve import MetricCurve
from lightning_saturation.drawing.replacing import replacing
from lightning_saturation.drawing.tabulated import plain
from lightning_saturation.drawing.windows import windows_of
from lightning_saturation.loggers.adapter import Sink
from lightning_saturation.loggers.dispatch import attempt, to_each
from lightning_saturation.loggers.tabular import to_csv
from lightning_saturation.saturation.plots.verdict import verdict_figure
from lightning_saturation.saturation.plots.windows import heatmap_figure, report_spectra, spectrum_figure
from lightning_saturation.saturation.report.report import SaturationReport
from lightning_saturation.saturation.report.windows import by_stage, records

MOST_SPECTRA = 12
"""Layers in a picture of spectra."""

KINDS = ("picture", "heatmap", "spectrum")
"""Of pictures; written when a run ends, and window by window only where that was asked for."""


_COUNTED = {
    "too_narrow": "too narrow",
    "too_wide": "too wide",
    "tail_layers": "tail",
    "bottlenecks": "bottleneck",
    "too_few_samples": "too few samples",
}
"""Kinds of findings by the end of the key under which there is how many layers they name."""


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

    W&B gets the long-format table ``{name}/table``, whose column ``last`` marks the last window of each stage, and per
    stage the pictures ``{name}/{stage}/picture`` (the verdict, with ``metric`` beside saturation), ``.../heatmap`` and
    ``.../spectrum``, ``.../profile`` (the last window over relative depth, one line for each run of a project), and in
    the summary ``.../diagnosis`` and the numbers of :func:`summary`. TensorBoard gets pictures, text and histograms of
    eigenvalues, MLflow pictures, CSV and text; other loggers have the scalars; with ``save_dir`` the files of
    :func:`save_reports` are written as well. A logger that fails is named in one warning, and so is a folder.

    W&B draws the last table of a key only: call this once, when the run ends, however it ends.
    """
    reports = [report for report in reports if report.layers]
    if not reports:
        return
    stages = by_stage(reports)
    pictures = {stage: cache(partial(_picture, same_stage, metric)) for stage, same_stage in stages.items()}

    def write(sink: Sink) -> None:
        # Tables last: an online W&B run asks its server for each of them, and without one the rest is in by then.
        for stage, same_stage in stages.items():
            key = f"{name}/{stage}"
            sink.text(f"{key}/diagnosis", str(same_stage[-1].diagnose(history=same_stage)), step=step)
            sink.summary({f"{key}/{what}": value for what, value in summary(same_stage).items()})
            _pictures(sink, pictures[stage], step=step, key=key)
            _histograms(sink, same_stage[-1], step=step, key=key)
        sink.table(f"{name}/table", records(stages), step=step)
        for stage, same_stage in stages.items():
            _profile(sink, same_stage[-1], step=step, key=f"{name}/{stage}/profile")

    to_each(loggers, write)
    if save_dir is not None:
        folder = os.fspath(save_dir)
        attempt(f"The folder {folder!r}", lambda: save_reports(reports, save_dir, name=name, metric=metric))


def save_reports(
    reports: Sequence[SaturationReport],
    save_dir: str | os.PathLike[str],
    *,
    name: str = "saturation",
    metric: MetricCurve | None = None,
) -> list[Path]:
    """Return the files written into ``save_dir``: ``{name}.csv``, ``{name}.json`` and ``{name}.png``.

    The CSV file has one row per stage, window and layer; the JSON file holds the same by window, with the averages,
    and the diagnosis of each stage; the picture is that of training with ``metric``, or of the stage seen last. The
    folder is made where needed, files of an earlier call are replaced by whole ones, and nothing is written where no
    report has a layer.
    """
    reports = [report for report in reports if report.layers]
    if not reports:
        return []
    folder = Path(save_dir)
    folder.mkdir(parents=True, exist_ok=True)
    table, document, picture = (folder / f"{name}.{extension}" for extension in ("csv", "json", "png"))
    with replacing(table) as path:
        path.write_text(to_csv(records(by_stage(reports))), encoding="utf-8")
    content = {
        "windows": [_window(report) for report in reports],
        "diagnosis": {stage: _diagnosis(same) for stage, same in by_stage(reports).items()},
    }
    with replacing(document) as path:
        path.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")
    with replacing(picture) as path:
        verdict_figure(windows_of(reports), metric=metric).savefig(path, dpi=150, format="png")
    return [table, document, picture]


def write_window(
    loggers: Iterable[Any],
    report: SaturationReport,
    *,
    step: int,
    name: str = "saturation",
    history: Sequence[SaturationReport] = (),
) -> None:
    """Write the table of one window under ``{name}/{stage}/window/``, and the pictures of ``history`` so far."""
    key = f"{name}/{report.stage}"
    so_far = [r for r in history if r.stage == report.stage and r.layers] or [report]
    picture = cache(partial(_picture, so_far, None))

    def write(sink: Sink) -> None:
        _pictures(sink, picture, step=step, key=key)
        sink.table(f"{key}/window/table", report.to_records(), step=step)
        _histograms(sink, report, step=step, key=f"{key}/window")

    if report.layers:
        to_each(loggers, write)


def summary(reports: Sequence[SaturationReport]) -> dict[str, float | int | str]:
    """Return what the last of ``reports``, windows of one stage and oldest first, says in values that are known.

    ``verdict`` is a sentence; ``max`` is the highest saturation of a layer in the average; of each kind of finding
    there is how many layers it names, 0 for none.
    """
    last = reports[-1]
    inner = [s for name, s in last.saturation.items() if name not in last.output_layers and not math.isnan(s)]
    diagnosis = last.diagnose(history=reports)
    named = {
        key: {name for f in diagnosis.findings if f.kind == kind for name in f.layers} for key, kind in _COUNTED.items()
    }
    counts = {key: len(layers) for key, layers in named.items()}
    return {"verdict": diagnosis.verdict, **({"max": max(inner)} if inner else {}), **counts}


def _pictures(sink: Sink, picture: Callable[[str], Figure | None], *, step: int, key: str) -> None:
    for kind in KINDS if sink.draws else ():
        figure = picture(kind)
        if figure is not None:
            sink.figure(f"{key}/{kind}", figure, step=step)


def _profile(sink: Sink, report: SaturationReport, *, step: int, key: str) -> None:
    deepest = max(len(report.layers) - 1, 1)
    rows = [
        {"depth": index / deepest, "saturation": value, "layer": layer}
        for index, (layer, value) in enumerate(report.saturation.items())
        if not math.isnan(value)
    ]
    title = f"Last saturation of each layer ({report.stage}), over relative depth"
    if rows:
        sink.chart(key, rows, x="depth", y="saturation", title=title, step=step)


def _histograms(sink: Sink, report: SaturationReport, *, step: int, key: str) -> None:
    for layer, share in report_spectra(report).items():
        eigenvalues = report.layers[layer].eigenvalues
        if eigenvalues is not None:
            sink.histogram(f"{key}/log10_eigenvalues/{layer}", eigenvalues[: len(share)].log10(), step=step)


def _picture(reports: Sequence[SaturationReport], metric: MetricCurve | None, kind: str) -> Figure | None:
    """Return the figure of one kind, or None where there is nothing to draw."""
    if kind == "spectrum":
        return spectrum_figure(reports[-1], most=MOST_SPECTRA) if report_spectra(reports[-1]) else None
    return heatmap_figure(reports) if kind == "heatmap" else verdict_figure(reports, metric=metric)


def _window(report: SaturationReport) -> dict[str, Any]:
    about = {key: getattr(report, key) for key in ("stage", "epoch", "step", "delta", "partial")}
    where = {"stage", "epoch", "step"}
    layers = [{key: value for key, value in row.items() if key not in where} for row in report.to_records()]
    return {**about, "average": plain(report.average), "layers": layers}


def _diagnosis(reports: Sequence[SaturationReport]) -> dict[str, Any]:
    diagnosis = reports[-1].diagnose(history=reports)
    return {**asdict(diagnosis), "average": plain(diagnosis.average), "text": str(diagnosis)}
