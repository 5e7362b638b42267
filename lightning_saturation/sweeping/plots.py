"""Trials as points: saturation against what they are for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lightning_saturation.drawing import canvas
from lightning_saturation.drawing.point_names import name_points
from lightning_saturation.sweeping.grid import title_of, varied

_MARKERS = "os^DXPv<>*hp"
_NAMED = 12
"""So many trials at most have their configuration beside their point."""

_BEYOND = 0.45
"""Above it accuracy falls quickly in Shenk et al., figure 9."""


def scatter_figure(results: Sequence[Mapping[str, Any]], *, metric: str) -> Figure:
    """Return average saturation against ``metric``: colour is the parameter with most values, shape the next one."""
    known = [result for result in results if result["average"] is not None]
    values = _values(known)
    by_colour, by_shape = [*sorted(values, key=lambda name: -len(values[name])), "", ""][:2]
    shades = dict(zip(values.get(by_colour, ()), canvas.colours(len(values.get(by_colour, ()))), strict=True))
    shapes = {value: _MARKERS[i % len(_MARKERS)] for i, value in enumerate(values.get(by_shape, ()))}
    figure = canvas.new_figure(8.2, 5.0)
    axes = figure.add_subplot()
    for result in known:
        config, x, y = result["config"], result["average"], result["value"]
        colour, marker = shades.get(str(config.get(by_colour)), "0.3"), shapes.get(str(config.get(by_shape)), "o")
        axes.plot(x, y, marker, color=colour, markersize=9, markeredgecolor="white")
    axes.axvline(_BEYOND, color="0.6", linestyle="--", linewidth=1, zorder=0)
    axes.text(
        _BEYOND, 1.01, "0.45, Shenk et al.", transform=axes.get_xaxis_transform(), fontsize=7, color="0.4", ha="center"
    )
    axes.set(xlim=(0, 1), xlabel="average saturation (0 to 1)", ylabel=metric)
    axes.set_title(f"Saturation against {metric}, {len(known)} networks", loc="left", fontsize=10, pad=18)
    axes.grid(color="0.92")
    _legend(figure, by_colour, {value: ("o", shade) for value, shade in shades.items()}, "outside right upper")
    _legend(figure, by_shape, {value: (shape, "0.3") for value, shape in shapes.items()}, "outside right lower")
    if len(known) <= _NAMED:
        names = [title_of(config) for config in varied([r["config"] for r in known])]
        name_points(figure, axes, [r["average"] for r in known], [r["value"] for r in known], names)
    return figure


def _legend(figure: Figure, title: str, looks: Mapping[str, tuple[str, Any]], place: Any) -> None:
    """Say what the (marker, colour) of each value is, where there are several."""
    points = [
        Line2D([], [], marker=marker, color=colour, label=value, linestyle="", markersize=8)
        for value, (marker, colour) in looks.items()
    ]
    if len(points) > 1:
        figure.legend(handles=points, title=title, loc=place, frameon=False, fontsize=8)


def _values(results: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the values of each parameter that has several, in their order, as text."""
    values: dict[str, set[Any]] = {}
    for result in results:
        for name, value in result["config"].items():
            values.setdefault(name, set()).add(value if isinstance(value, int | float) else str(value))
    return {
        name: [str(value) for value in sorted(several, key=lambda value: (isinstance(value, str), value))]
        for name, several in values.items()
        if len(several) > 1
    }
