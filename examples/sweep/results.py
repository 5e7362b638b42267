"""One file per finished trial, and what they say together: a ranking and the picture of figure 9."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from settings import Settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Result = dict[str, Any]

_MARKERS = {"mlp": "X", "cnn": "P", "vgg11": "o", "vgg13": "s", "vgg16": "^", "vgg19": "D"}
_COLUMNS = ("rank", "model", "width", "parameters", "average saturation", "test accuracy", "seconds", "diagnosis")


def save(folder: Path, settings: Settings, result: Result) -> Path:
    """Write the result of a finished trial; whoever reads sees a whole file or none, whatever kills the writer."""
    path = folder / f"{settings.name}.json"
    text = json.dumps({"settings": asdict(settings), **result}, indent=1)
    _replace(path, lambda file: file.write(text.encode()))
    return path


def find(folder: Path, settings: Settings) -> Result | None:
    """Return the result of the trial with exactly these settings, or None where it has not finished."""
    path = folder / f"{settings.name}.json"
    result = json.loads(path.read_text()) if path.exists() else None
    return result if result and result["settings"] == asdict(settings) else None


def comparable(folder: Path, settings: Settings) -> list[Result]:
    """Return the finished trials that differ from ``settings`` in nothing but the architecture."""
    stored = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return [result for result in stored if Settings.of(result["settings"]).surroundings == settings.surroundings]


def ranked(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return one row per trial, the best test accuracy first; of equal ones the smaller network first."""
    order = sorted(results, key=lambda result: (-result["test_accuracy"], result["parameters"]))
    rows = []
    for rank, result in enumerate(order, start=1):
        numbers = (result["parameters"], result["average"], result["test_accuracy"], result["seconds"])
        architecture = (result["settings"]["model"], result["settings"]["width"])
        rows.append(dict(zip(_COLUMNS, (rank, *architecture, *numbers, _in_short(result)), strict=True)))
    return rows


def _in_short(result: Result) -> str:
    """Return the findings with the layers they are about, all of them where they are few."""
    parts = []
    for finding in result["findings"]:
        names = [name.removeprefix("network.") for name in finding["layers"]]
        whole = len(names) >= len(result["layers"]) - 1  # the network but for its output layer
        span = ", ".join(names) if len(names) <= 2 else f"{names[0]} … {names[-1]}, {len(names)} layers"
        parts.append(finding["kind"] if whole else f"{finding['kind']} ({span})")
    return "; ".join(parts) or "no rule applies"


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Return the ranking as a Markdown table whose columns line up in a terminal, too."""
    formats = {"width": "{:g}", "parameters": "{:,}", "average saturation": "{:.3f}", "test accuracy": "{:.3f}"}
    formats |= {"seconds": "{:.0f}"}
    cells = [
        [formats.get(key, "{}").format(value) if value is not None else "missing" for key, value in row.items()]
        for row in rows
    ]
    widths = [max(len(line[column]) for line in [list(_COLUMNS), *cells]) for column in range(len(_COLUMNS))]
    text = {"model", "diagnosis"}
    rule = ["-" * w if name in text else "-" * (w - 1) + ":" for name, w in zip(_COLUMNS, widths, strict=True)]
    lines = [
        [cell.ljust(w) if name in text else cell.rjust(w) for name, cell, w in zip(_COLUMNS, line, widths, strict=True)]
        for line in [list(_COLUMNS), rule, *cells]
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def scatter(results: Sequence[Result], title: str) -> Figure:
    """Return average saturation against test accuracy, a point per architecture: colour is width, shape is depth.

    Source: Shenk et al., figure 9, whose accuracy falls fastest beyond an average saturation of about 45 %.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(8.2, 5.2), layout="constrained")
    axes = figure.add_subplot()
    widths = sorted({result["settings"]["width"] for result in results})
    models = [model for model in _MARKERS if model in {result["settings"]["model"] for result in results}]
    # plasma differs in lightness as well as in hue; its bright end cannot be seen on white
    colours = {width: colormaps["plasma"](0.85 * i / max(len(widths) - 1, 1)) for i, width in enumerate(widths)}
    axes.axvline(0.45, color="0.6", linestyle="--", linewidth=1, zorder=0)
    axes.annotate(
        "0.45",
        (0.45, 1),
        (3, -3),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        va="top",
        color="0.4",
    )
    for result in results:
        if result["average"] is None:
            continue
        model, width = result["settings"]["model"], result["settings"]["width"]
        point = {"marker": _MARKERS[model], "color": colours[width], "markersize": 9, "markeredgecolor": "white"}
        axes.plot(result["average"], result["test_accuracy"], linestyle="", **point)
    axes.set(xlim=(0, 1), xlabel="average saturation on the training images (0 to 1)")
    axes.set(ylabel="test accuracy (share of right answers)", title=title)
    axes.grid(color="0.92")
    shapes = [Line2D([], [], marker=_MARKERS[m], color="0.3", linestyle="", markersize=8, label=m) for m in models]
    shades = [Line2D([], [], marker="o", color=colours[w], linestyle="", markersize=8, label=f"{w:g}") for w in widths]
    figure.legend(handles=shapes, title="model", loc="outside right upper", frameon=False)
    figure.legend(handles=shades, title="width factor", loc="outside right lower", frameon=False)
    return figure


def publish(folder: Path, results: Sequence[Result], title: str) -> tuple[Path, Path]:
    """Return the paths of the ``scatter.png`` and ``ranking.md`` written into ``folder``."""
    picture, table = folder / "scatter.png", folder / "ranking.md"
    figure = scatter(results, title)
    _replace(picture, lambda file: figure.savefig(file, format="png", dpi=150))
    text = f"{title}\n\n{markdown(ranked(results))}\n"
    _replace(table, lambda file: file.write(text.encode()))
    return picture, table


def _replace(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", suffix=".part", delete=False) as file:
        try:
            write(file)
        except BaseException:
            os.unlink(file.name)
            raise
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)
