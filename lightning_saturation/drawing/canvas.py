"""What every figure shares: matplotlib on demand, room for whole layer names, colours that everybody can tell apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

from matplotlib import colormaps
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

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


def layer_room(names: Sequence[str]) -> float:
    """Return the inches that the rows or columns of ``names`` take."""
    return min(len(names), MOST_NAMES) * INCHES_PER_LAYER


def name_layers(axis: Axis, names: Sequence[str], *, rotate: bool) -> None:
    """Write ``names`` along ``axis`` at 0, 1, 2, …, never shortened; every other one (or fewer) where they are many."""
    step = max(1, math.ceil(len(names) / MOST_NAMES))
    axis.set_ticks(range(0, len(names), step))
    axis.set_ticklabels(list(names[::step]), fontsize=LABEL_SIZE, rotation=90 if rotate else 0)
    along = "in order of execution" if step == 1 else f"in order of execution, one in {step} named"
    axis.set_label_text(f"layer ({along})")
