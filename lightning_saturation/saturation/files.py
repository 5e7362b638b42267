"""Reports as files, for a run without any logger or beside one."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning_saturation.drawing.metric_curve import MetricCurve
from lightning_saturation.drawing.records import plain
from lightning_saturation.drawing.replacing import replacing
from lightning_saturation.drawing.windows import windows_of
from lightning_saturation.loggers.tabular import to_csv
from lightning_saturation.saturation.plots.verdict import verdict_figure
from lightning_saturation.saturation.report.report import SaturationReport
from lightning_saturation.saturation.report.windows import by_stage, records


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


def _window(report: SaturationReport) -> dict[str, Any]:
    about = {key: getattr(report, key) for key in ("stage", "epoch", "step", "delta", "partial")}
    where = {"stage", "epoch", "step"}
    layers = [{key: value for key, value in row.items() if key not in where} for row in report.to_records()]
    return {**about, "average": plain(report.average), "layers": layers}


def _diagnosis(reports: Sequence[SaturationReport]) -> dict[str, Any]:
    diagnosis = reports[-1].diagnose(history=reports)
    return {**asdict(diagnosis), "average": plain(diagnosis.average), "text": str(diagnosis)}
