"""Names beside points that hide neither each other nor a point."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

_SIZE = 7
"""Points of a letter."""

_APART = 5
"""Points between a point and its name."""

_PLACES = ((1, 1), (-1, 1), (0, 1), (1, -1), (-1, -1), (0, -1), (1, 0), (-1, 0))
"""Where a name may be: (right, up)."""

_ALIGNED = {1: ("left", "bottom"), 0: ("center", "center"), -1: ("right", "top")}

Box = tuple[float, float, float, float]
"""Left, bottom, right and top, in points."""


def name_points(figure: Figure, axes: Axes, xs: Sequence[float], ys: Sequence[float], names: Sequence[str]) -> None:
    """Write each of ``names`` beside its point, at the first place that is free, the last one where none is.

    Limits of ``axes``, an axes of ``figure``, stay as they are, so set them before.
    """
    if not names:
        return
    figure.draw_without_rendering()  # only then does the layout say where a point is
    scale = 72 / figure.dpi
    points = [(scale * x, scale * y) for x, y in axes.transData.transform(list(zip(xs, ys, strict=True)))]
    left, bottom, right, top = (scale * edge for edge in axes.bbox.extents)
    taken: list[Box] = [(x - _APART, y - _APART, x + _APART, y + _APART) for x, y in points]
    for (x, y), name, at in zip(points, names, zip(xs, ys, strict=True), strict=True):
        for across, up in _PLACES:
            box = _box(x + _APART * across, y + _APART * up, across, up, len(name))
            inside = box[0] >= left and box[1] >= bottom and box[2] <= right and box[3] <= top
            if inside and not any(_meet(box, other) for other in taken):
                break
        taken.append(box)
        axes.annotate(
            name, at, (_APART * across, _APART * up), textcoords="offset points", fontsize=_SIZE, color="0.3",
            ha=_ALIGNED[across][0], va=_ALIGNED[up][1],
        )  # fmt: skip


def _box(x: float, y: float, across: int, up: int, letters: int) -> Box:
    width, height = 0.6 * _SIZE * letters, 1.2 * _SIZE
    left, bottom = x - width * (1 - across) / 2, y - height * (1 - up) / 2
    return left, bottom, left + width, bottom + height


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
