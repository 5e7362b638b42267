"""Reports that are a table: as text, with bars where notebooks show them, and as plain records for data frames."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

from lightning_saturation.drawing.html_table import html_table

_SCALARS = ("bool", "int", "float", "str")


class Table(NamedTuple):
    """What a report shows: cells under a ``head`` with a ``title``, and sentences ``above`` and ``below`` them.

    ``bars`` says, by column, how full the bar at each cell is, in [0, 1]; NaN for none.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    bars: Mapping[int, Sequence[float]] = {}
    above: Sequence[str] = ()
    below: Sequence[str] = ()


class Tabulated:
    """Shows what :meth:`_table` returns."""

    def _table(self) -> Table:
        raise NotImplementedError

    def __str__(self) -> str:
        shown = self._table()
        lines = table(shown.head, shown.rows) if shown.rows else []
        return "\n".join([*([shown.title] if shown.title else []), *shown.above, *lines, *shown.below])

    def _repr_html_(self) -> str:
        shown = self._table()
        return html_table(shown.title, shown.head, shown.rows, bars=shown.bars, sentences=[*shown.above, *shown.below])


def shares(values: Sequence[float]) -> list[float]:
    """Return ``values`` over the largest of them, for bars of what has no largest value of its own; NaN stays NaN.

    >>> shares([1.0, 4.0])
    [0.25, 1.0]
    """
    largest = max((value for value in values if value == value), default=0.0)
    return [value / largest if largest > 0 else 0.0 * value for value in values]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table: the first and the last column flush left, numbers between them flush right."""
    everything = [head, *rows]
    widths = [max(len(row[column]) for row in everything) for column in range(len(head))]
    ends = (0, len(head) - 1)
    return [
        "  ".join(
            cell.ljust(width) if column in ends else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in everything
    ]


def number(value: float, digits: int = 3) -> str:
    """Return ``value`` with ``digits`` decimals, or "missing" for NaN."""
    return "missing" if math.isnan(value) else f"{value:.{digits}f}"


def columns(kind: type) -> list[str]:
    """Return the names of the fields of the dataclass ``kind`` that hold a number or a text."""
    return [field.name for field in fields(kind) if getattr(field.type, "__name__", field.type) in _SCALARS]


def record(item: Any) -> dict[str, Any]:
    """Return the numbers and texts in the dataclass ``item`` by name; None where a number is missing."""
    return {name: plain(getattr(item, name)) for name in columns(type(item))}


def plain(value: Any) -> Any:
    """Return ``value``, None for NaN."""
    return None if isinstance(value, float) and math.isnan(value) else value
