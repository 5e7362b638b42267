"""Architectures as points: saturation against accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

_MARKERS = {"mlp": "X", "cnn": "P", "vgg11": "o", "vgg13": "s", "vgg16": "^", "vgg19": "D"}


def scatter(results: Sequence[dict[str, Any]], title: str) -> Figure:
    """Return average saturation against test accuracy, a point per architecture: colour is width, shape is depth.

    Source: Shenk et al., figure 9, whose networks lose accuracy fastest beyond an average saturation of about 0.45.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.2, 5.2), layout="constrained")
    axes = figure.add_subplot()
    _frame(axes, title)
    widths = sorted({result["settings"]["width"] for result in results})
    # plasma differs in lightness as well as in hue; its bright end cannot be seen on white
    colours = {width: colormaps["plasma"](0.85 * i / max(len(widths) - 1, 1)) for i, width in enumerate(widths)}
    for result in results:
        if result["average"] is not None:
            marker, colour = _MARKERS[result["settings"]["model"]], colours[result["settings"]["width"]]
            axes.add_line(_point(marker, colour, result["average"], result["test_accuracy"]))
    axes.autoscale_view(scalex=False)
    present = {result["settings"]["model"] for result in results}
    shapes = [_point(marker, "0.3", label=model) for model, marker in _MARKERS.items() if model in present]
    shades = [_point("o", colour, label=f"{width:g}") for width, colour in colours.items()]
    threshold = axes.axvline(
        0.45, color="0.6", linestyle="--", linewidth=1, zorder=0, label="0.45, Shenk\net al., fig. 9"
    )
    figure.legend(handles=[threshold], loc="outside right center", frameon=False)
    figure.legend(handles=shapes, title="model", loc="outside right upper", frameon=False)
    figure.legend(handles=shades, title="width factor", loc="outside right lower", frameon=False)
    return figure


def _frame(axes: Axes, title: str) -> None:
    axes.set(xlim=(0, 1), xlabel="average saturation on the training images (0 to 1)")
    axes.set_ylabel("test accuracy")
    axes.set_title(title, loc="left", fontsize=10)
    axes.grid(color="0.92")


def _point(marker: str, colour: Any, x: float | None = None, y: float | None = None, *, label: str = "") -> Line2D:
    from matplotlib.lines import Line2D

    data = ([], []) if x is None else ([x], [y])
    size = 11 if marker in "^XP" else 9  # triangles and crosses look smaller than they are
    style = {"color": colour, "markersize": size, "markeredgecolor": "white", "linestyle": ""}
    return Line2D(*data, marker=marker, label=label, **style)
