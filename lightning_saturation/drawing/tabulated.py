"""Reports that are a table: as text, with bars where notebooks show them, and as plain records for data frames."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from html import escape
from typing import Any, NamedTuple

_BAR = 90
"""Pixels of a bar that is full."""

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


def html_table(
    title: str,
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    bars: Mapping[int, Sequence[float]] | None = None,
    sentences: Sequence[str] = (),
) -> str:
    """Return a table of ``rows`` between ``title`` and ``sentences``, with numbers flush right.

    ``bars`` holds, by column, how full the bar before each of its cells is, in [0, 1]; NaN for none. Colours of text
    and ground are the page's own, so that dark pages stay readable.
    """
    bars = bars or {}
    ends = (0, len(head) - 1)
    lines = ["".join(_cell("th", text, left=column in ends) for column, text in enumerate(head))]
    for number, row in enumerate(rows):
        cells = [
            _cell("td", text, left=column in ends, bar=bars[column][number] if column in bars else math.nan)
            for column, text in enumerate(row)
        ]
        lines.append("".join(cells))
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    scrolls = "max-height:36em;overflow:auto"
    said = "".join(f"<div>{escape(sentence)}</div>" for sentence in sentences)
    return f'<div style="{scrolls}"><b>{escape(title)}</b><table style="margin:0.4em 0">{body}</table>{said}</div>'


def html_list(title: str, items: Sequence[Sequence[str]]) -> str:
    """Return ``title`` and under it a list, the first line of each item upright and the others behind it small."""
    points = []
    for first, *others in items:
        small = "".join(f'<div style="font-size:smaller;opacity:0.8">{escape(other)}</div>' for other in others)
        points.append(f"<li>{escape(first)}{small}</li>")
    return f'<div><b>{escape(title)}</b><ul style="margin:0.4em 0">{"".join(points)}</ul></div>'


def _cell(tag: str, text: str, *, left: bool, bar: float = math.nan) -> str:
    drawn = ""
    if not math.isnan(bar):
        size = f"width:{_BAR * min(max(bar, 0.0), 1.0):.0f}px;height:0.7em"
        full = f"display:inline-block;width:{_BAR}px;margin-right:0.5em;background:#8884;text-align:left"
        drawn = f'<span style="{full}"><span style="display:inline-block;{size};background:#5b8fc7"></span></span>'
    style = f"text-align:{'left' if left else 'right'};white-space:nowrap;padding:0.1em 0.6em"
    return f'<{tag} style="{style}">{drawn}{escape(text)}</{tag}>'
