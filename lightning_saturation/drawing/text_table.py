"""Numbers lined up as text."""

from __future__ import annotations

import math
from collections.abc import Sequence


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
