"""How full each layer is: one bar a layer, of one window, in the colour of what was found."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.transforms import ScaledTranslation

from lightning_saturation.drawing import canvas
from lightning_saturation.drawing.labels import short_names
from lightning_saturation.saturation.report.diagnosis import Diagnosis
from lightning_saturation.saturation.report.layer import LayerStatistics
from lightning_saturation.saturation.report.report import SaturationReport

FEW, MANY = 14, 48
"""Up to ``FEW`` layers the labels lie, up to ``MANY`` they stand; more layers are named in steps."""

_GAP = 0.012
_LABEL = 0.065


class Look(NamedTuple):
    """Colour of a bar and what the legend calls it; lightness differs as well as hue."""

    colour: str
    label: str


FINE = Look("#5b8fc7", "nothing to flag")
OUTPUT = Look("#c3c3c3", "output layer")
LOOKS = {
    "too narrow": Look("#c1272d", "too narrow"),
    "too wide": Look("#8fb9a8", "too wide"),
    "tail": Look("#e6a83a", "does little"),
    "bottleneck": Look("#8f1d5b", "bottleneck"),
}
"""By the kind of a finding; of a layer with several the last counts. Too few samples are hatched instead."""

_SIDES = {"too narrow": 1, "too wide": -1}
"""Findings about an average colour those layers that are on its side of the threshold."""


def looks(report: SaturationReport, diagnosis: Diagnosis) -> dict[str, Look]:
    """Return how each layer's bar looks."""
    chosen = {name: OUTPUT if name in report.output_layers else FINE for name in report.layers}
    for kind, look in LOOKS.items():
        for finding in diagnosis.findings:
            if finding.kind == kind:
                side, limit = _SIDES.get(kind, 0), finding.evidence.get("threshold", 0.0)
                against = [name for name in finding.layers if side * (report.saturation[name] - limit) < 0]
                chosen |= {name: look for name in finding.layers if name in chosen and name not in against}
    return chosen


def bars_width(count: int) -> float:
    """Return the inches that ``count`` bars take, which grow no further beyond ``MANY``."""
    return max(4.6, 0.62 * count) if count <= FEW else 1.0 + min(0.24 * count, 0.24 * MANY)


def bars_height(names: Sequence[str]) -> float:
    """Return the inches that names below the bars and labels above them take where they stand."""
    return canvas.name_room(short_names(names)) + 0.3 if len(names) > FEW else 0.4


def draw_bars(axes: Axes, report: SaturationReport, first: SaturationReport | None, diagnosis: Diagnosis) -> None:
    """Draw ``report`` into ``axes``: bars with used/width, ticks where they were in ``first``, findings in colour."""
    names = list(report.layers)
    chosen = looks(report, diagnosis)
    counts = Counter(chosen.values())
    for place, name in enumerate(names):
        layer = report.layers[name]
        value = 0.0 if math.isnan(layer.saturation) else layer.saturation
        hatch = "////" if layer.too_few_samples else None
        axes.bar(place, value, width=0.72, color=chosen[name].colour, hatch=hatch, edgecolor="white", lw=0)
        if layer.is_bracketed:
            axes.vlines(place, layer.saturation_lower, layer.saturation_upper, color="black", lw=0.8)
        before = _before(first, name)
        if not math.isnan(before):
            axes.hlines(before, place - 0.36, place + 0.36, color="black", lw=1.4 if len(names) <= MANY else 0.8)
        if len(names) <= MANY or (chosen[name] not in (FINE, OUTPUT) and counts[chosen[name]] <= 12):
            _label(axes, place, layer, before, upright=len(names) > FEW)
    _name(axes, names)
    axes.set_xlim(-0.7, len(names) - 0.3)
    axes.set_ylabel(f"saturation\n(directions for {100 * report.delta:g} % of variance / width)", fontsize=8)
    axes.set_title("How full are the layers?", fontsize=9, loc="left")


def bars_legend(axes: Axes, report: SaturationReport, first: SaturationReport | None, diagnosis: Diagnosis) -> None:
    """Say beside the title of ``axes`` what colours and marks mean, where there is something to say."""
    used = Counter(looks(report, diagnosis).values())
    handles: list[Patch | Line2D] = [
        Patch(color=look.colour, label=look.label if look is OUTPUT else f"{look.label} ({count})")
        for look, count in used.items()
        if look is not FINE
    ]
    if any(layer.too_few_samples for layer in report.layers.values()):
        handles.append(Patch(facecolor=FINE.colour, hatch="////", edgecolor="white", label="too few samples"))
    if first is not None:
        handles.append(Line2D([], [], color="black", lw=1.4, label=f"in epoch {first.epoch}"))
    if any(layer.is_bracketed for layer in report.layers.values()):
        handles.append(Line2D([], [], color="black", lw=0.8, marker="|", ls="none", label="certified bounds"))
    if handles:
        _legend(axes, handles, beside=bars_width(len(report.layers)) - 2.6)


def _legend(axes: Axes, handles: list[Patch | Line2D], *, beside: float) -> None:
    """Put the legend to the right of the title if it fits into so many inches, else into a line above the title."""
    fits = sum(0.45 + 0.065 * len(str(handle.get_label())) for handle in handles) <= beside
    up = axes.transAxes + ScaledTranslation(0, 0 if fits else 0.2, axes.figure.dpi_scale_trans)
    place = (
        {"loc": "lower right", "bbox_to_anchor": (1.01, 0.99)}
        if fits
        else {"loc": "lower left", "bbox_to_anchor": (0, 1)}
    )
    axes.legend(
        handles=handles, **place, bbox_transform=up, ncols=len(handles), fontsize=canvas.LABEL_SIZE, frameon=False,
        borderpad=0, borderaxespad=0.3, columnspacing=1.2, handlelength=1.6,
    )  # fmt: skip


def _before(first: SaturationReport | None, name: str) -> float:
    return first.layers[name].saturation if first is not None and name in first.layers else math.nan


def _label(axes: Axes, place: int, layer: LayerStatistics, before: float, *, upright: bool) -> None:
    """Write used/width above the bar, or above the tick of the first window where that is in the way."""
    missing = math.isnan(layer.saturation)
    height = 0.0 if missing else layer.saturation
    room = _LABEL * (2.4 if upright else 1)
    if height <= before <= height + _GAP + room:
        height = before
    text = "?" if missing else f"{layer.intrinsic_dimension:.0f}/{layer.features}"
    axes.text(place, height + _GAP, text, ha="center", va="bottom", fontsize=7.5, rotation=90 if upright else 0)


def _name(axes: Axes, names: list[str]) -> None:
    step = -(-len(names) // MANY)
    shown = short_names(names)[::step]
    across = len(names) > FEW
    lies = sum(map(len, shown)) <= 9 * bars_width(len(names))
    axes.set_xticks(range(0, len(names), step))
    rotation = (
        {"rotation": 90} if across else {} if lies else {"rotation": 35, "ha": "right", "rotation_mode": "anchor"}
    )
    axes.set_xticklabels(shown, fontsize=canvas.LABEL_SIZE, **rotation)
    along = "in order of execution" if step == 1 else f"{len(names)} in order of execution, one in {step} named"
    axes.set_xlabel(f"layers ({along})", fontsize=canvas.LABEL_SIZE)
