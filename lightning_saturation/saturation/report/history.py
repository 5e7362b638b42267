"""The reports of a run as a few tensors: what a checkpoint keeps of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from lightning_saturation.saturation.report.layer import NUMBERS
from lightning_saturation.saturation.report.report import ABOUT, SaturationReport


def without_eigenvalues(report: SaturationReport) -> SaturationReport:
    """Return ``report`` without the eigenvalues of its layers."""
    bare = replace(report, layers={name: replace(layer, eigenvalues=None) for name, layer in report.layers.items()})
    vars(bare)["numbers"] = report.numbers
    return bare


def to_state(reports: Sequence[SaturationReport]) -> dict[str, Any]:
    """Return all numbers of ``reports`` and the last eigenvalues of each stage, for ``torch.load(weights_only=True)``.

    One table (rows, numbers) in float64 holds the layers of all reports, one after the other.
    """
    names: dict[tuple[tuple[str, str], ...], int] = {}  # layers and what their rows are
    windows = []
    for report in reports:
        layers = names.setdefault(tuple((name, layer.rows) for name, layer in report.layers.items()), len(names))
        windows.append({**{key: getattr(report, key) for key in ABOUT}, "layers": layers})
    tables = [report.numbers for report in reports]  # kept by each: gathering them anew would take seconds
    last = {report.stage: index for index, report in enumerate(reports)}.values()
    eigenvalues = {
        index: {n: s.eigenvalues.clone() for n, s in reports[index].layers.items() if s.eigenvalues is not None}
        for index in last
    }
    table = torch.cat(tables) if tables else torch.zeros(0, len(NUMBERS), dtype=torch.float64)
    return {
        "windows": windows,
        "names": [[name for name, _ in each] for each in names],
        "rows": [[rows for _, rows in each] for each in names],
        "columns": list(NUMBERS),
        "table": table,
        "eigenvalues": eigenvalues,
    }


def from_state(state: Any) -> list[SaturationReport]:
    """Return the reports that ``to_state`` described, or a list of what ``SaturationReport.to_state`` returned.

    Fields that this version does not know are left out, those that are missing are NaN or have their defaults.
    """
    if not isinstance(state, Mapping):
        return [SaturationReport.from_state(each) for each in state]
    if not state:
        return []
    names, columns, rows = state["names"], state["columns"], iter(state["table"].tolist())
    reports = []
    for index, window in enumerate(state["windows"]):
        eigenvalues = state["eigenvalues"].get(index, {})
        layers = {}
        named = names[window["layers"]]
        kinds = state["rows"][window["layers"]] if "rows" in state else ["samples"] * len(named)
        for name, kind in zip(named, kinds, strict=True):
            known = dict(zip(columns, next(rows), strict=True))
            layers[name] = {**known, "rows": kind, "eigenvalues": eigenvalues.get(name)}
        reports.append(SaturationReport.from_state({**window, "layers": layers}))
    return reports
