"""One file per finished trial, and the ranking of all."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from picture import scatter
from settings import Settings

Result = dict[str, Any]

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
    return "; ".join(dict.fromkeys(parts)) or "nothing to flag"


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
