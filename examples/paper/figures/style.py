"""Names, colours and bands that the figures share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

NAMES = {
    "photos": "CIFAR-10",
    "cat-dog": "cat against dog",
    "unbalanced": "unbalanced CIFAR-10",
    "random-labels": "labels at random",
    "text": "text",
}
MARKERS = {"vgg11": "o", "vgg13": "s", "vgg16": "^", "vgg19": "D", "resnet18": "*", "mlp": "x"}


def shade(value: Any, values: Iterable[Any]) -> tuple[float, ...]:
    """Return the colour of ``value`` among ``values``: the larger, the lighter."""
    order = sorted(set(values))
    return colormaps["viridis"](0.9 * order.index(value) / max(len(order) - 1, 1))


def band(axes: Axes, curves: np.ndarray, *, color: Any, label: str | None = None) -> None:
    """Draw the mean of ``curves`` (runs × epochs) over epochs counted from 1, and their range."""
    epochs = np.arange(1, curves.shape[1] + 1)
    axes.plot(epochs, curves.mean(0), color=color, label=label)
    if len(curves) > 1:
        axes.fill_between(epochs, curves.min(0), curves.max(0), color=color, alpha=0.2, linewidth=0)


def whole_epochs(axes: Axes) -> None:
    """Let ticks on the axis of epochs be whole numbers."""
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def logarithmic(axes: Axes) -> None:
    """Make the y axis logarithmic, with ticks that read as numbers."""
    axes.set_yscale("log")
    for axis in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        axis(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))


def title_of(study: Mapping[str, Any]) -> str:
    """Return which network a study is about, and on which images."""
    of = study["of"][0]
    return f"{of['model'].upper()}, width {fraction(of['width'])}, {NAMES[of['data']]}"


def fraction(width: float) -> str:
    """Return a width factor as one says it, such as 1/8."""
    return f"1/{round(1 / width)}" if width < 1 else f"{width:g}"
