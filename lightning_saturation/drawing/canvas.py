"""What every figure shares: matplotlib on demand, room for whole layer names, colours that everybody can tell apart."""

from __future__ import annotations

import io
import math
from collections.abc import Collection, Sequence
from typing import TypeVar

import numpy as np
from matplotlib import colormaps
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from PIL import Image

from lightning_saturation.drawing.labels import fitting_names

LABEL_SIZE = 8
"""Points of a layer name."""

INCHES_PER_LAYER = 0.17
"""What one layer takes along the axis that names the layers."""

MOST_NAMES = 60
"""More layers than this are named in steps, so that a figure stays below 12 inches or so."""

LINE_STYLES = ("-", "--", "-.", ":")
"""Lines differ in style as well as in colour."""

Item = TypeVar("Item")


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of ``width`` × ``height`` inches that makes room for its labels.

    The figure belongs to nobody but the caller: pyplot does not know it, so it needs no ``close``.
    """
    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))


def colours(count: int) -> list[tuple[float, float, float, float]]:
    """Return ``count`` colours from dark blue (first) to orange (last), ordered in lightness as well as in hue."""
    # Not viridis, which stands for saturation itself in the heatmaps; plasma's bright end cannot be read on white.
    return [colormaps["plasma"](0.8 * i / max(count - 1, 1)) for i in range(count)]


def thin(items: Sequence[Item], most: int) -> list[Item]:
    """Return at most ``most`` of ``items``, evenly spread, the first and the last among them (the last if one).

    >>> thin(range(10), 4)
    [0, 3, 6, 9]
    """
    if len(items) <= most:
        return list(items)
    if most == 1:
        return [items[-1]]
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def name_room(names: Sequence[str]) -> float:
    """Return the inches that the longest of ``names`` takes."""
    return max(map(len, names), default=0) * LABEL_SIZE * 0.62 / 72


def cut(shown: Sequence[object], known: Collection[object]) -> str:
    """Return how many of ``known`` are ``shown``, for a title; nothing where all are.

    >>> cut("ab", "abc"), cut("abc", "abc")
    (' (2 of 3)', '')
    """
    return f" ({len(shown)} of {len(known)})" if len(shown) < len(known) else ""


def layer_room(names: Sequence[str], *, most: int = MOST_NAMES) -> float:
    """Return the inches that the rows or columns of ``names`` take."""
    return min(len(names), most) * INCHES_PER_LAYER


def label_log(axis: Axis) -> None:
    """Label 1, 2, 5, 10, … in plain digits: axes that span about a decade would have one label, or crowded powers."""
    low, high = axis.get_view_interval()
    subs = (1, 2, 5) if high < 1000 * low else (1,)
    axis.set_major_locator(MaxNLocator(5) if high < 5 * low else LogLocator(subs=subs))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def name_layers(axis: Axis, names: Sequence[str], *, rotate: bool, most: int = MOST_NAMES) -> None:
    """Write ``names``, as they fit, along ``axis`` at 0, 1, 2, …; every other one (or fewer) beyond ``most``."""
    step = max(1, math.ceil(len(names) / most))
    axis.set_ticks(range(0, len(names), step))
    axis.set_ticklabels(fitting_names(names)[::step], fontsize=LABEL_SIZE, rotation=90 if rotate else 0)
    along = "in order of execution" if step == 1 else f"in order of execution, one in {step} named"
    axis.set_label_text(f"layer ({along})")


def pixels(figure: Figure) -> np.ndarray:
    """Return the figure as (height, width, 3), uint8; whichever canvas the figure has stays as it is."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return np.asarray(Image.open(buffer).convert("RGB"))
