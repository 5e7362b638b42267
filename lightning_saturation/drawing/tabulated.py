"""Reports that are a table: as text, and with bars where notebooks show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lightning_saturation.drawing.html_table import html_table
from lightning_saturation.drawing.text_table import table


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
