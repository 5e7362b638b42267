"""What sizing by the profile and freezing are worth: tables from the studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from paper.worth.tables import table

SIZES = ("as it is", "suggested", "scaled to the size of the suggested", "doubled", "halved")
FREEZING = ("plain", "linear", "converged")


def sizing(studies: Sequence[Mapping[str, Any]]) -> str:
    """Return a table of accuracy, parameters and FLOPs by the way in which widths were changed."""
    rows = []
    for study in (each for each in studies if each["kind"] == "sizing"):
        average = study["parts"]["advice"]["average"]
        for kind in SIZES:
            parts = [part for name, part in study["parts"].items() if name.rpartition(" ")[0] == kind]
            accuracies = [part["val/accuracy"] for part in parts]
            found = f"{fmean(accuracies):.3f}" + (
                f" ({min(accuracies):.3f} … {max(accuracies):.3f})" if parts[1:] else ""
            )
            size = f"{parts[0]['parameters']:,}", f"{parts[0]['flops'] / 1e6:.2f}"
            run = f"{study['name'].removeprefix('sizing_')}, average saturation {average:.2f}"
            rows.append((run, kind, found, *size, f"{len(parts)}"))
    head = ("network", "widths", "test accuracy (range)", "parameters", "MFLOPs an image", "seeds")
    return table(rows, head) if rows else "Not decided here: no study of widths is finished."


def freezing(studies: Sequence[Mapping[str, Any]]) -> str:
    """Return a table of accuracy and time with layers frozen, against the same seeds without."""
    rows = []
    for study in (each for each in studies if each["kind"] == "freezing"):
        by_kind = {kind: [p for n, p in study["parts"].items() if n.split(" ")[0] == kind] for kind in FREEZING}
        for kind, parts in by_kind.items():
            accuracies = [fmean(part["val/accuracy"][-3:]) for part in parts]
            pairs = list(zip(parts, by_kind["plain"], strict=True))
            times = [[sum(p[key]) / sum(q[key]) for p, q in pairs] for key in ("processor_seconds", "seconds")]
            told = [f"{fmean(ratios):.2f} ({min(ratios):.2f} … {max(ratios):.2f})" for ratios in times]
            stopped = fmean(max((count for _, count in part["frozen"]), default=0) for part in parts)
            spread = f"{fmean(accuracies):.3f} ({min(accuracies):.3f} … {max(accuracies):.3f})"
            name = study["name"].removeprefix("freezing_")
            rows.append((name, kind, spread, *told, f"{stopped:.0f}", f"{len(parts)}"))
    head = ("network", "schedule", "test accuracy (range)", "processor time ×", "wall time ×", "blocks frozen", "seeds")
    return table(rows, head) if rows else "Not decided here: no study of freezing is finished."
