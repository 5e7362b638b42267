"""Records as columns and rows, as CSV text and, when they are too many, fewer of them."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

from lightning_saturation.drawing.canvas import thin
from lightning_saturation.loggers.adapter import Record


def columns(records: Sequence[Record]) -> list[str]:
    """Return the columns of all records together, in the order in which they first appear."""
    return list(dict.fromkeys(column for record in records for column in record))


def rows(records: Sequence[Record]) -> list[list[Any]]:
    """Return one list per record over all columns; None where a value is absent or NaN."""
    names = columns(records)
    return [[_plain(record.get(name)) for name in names] for record in records]


def to_csv(records: Sequence[Record]) -> str:
    """Return the records as CSV text with a header; missing values are empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([[_inert(cell) for cell in row] for row in [columns(records), *rows(records)]])
    return text.getvalue()


def fit(records: Sequence[Record], most: int) -> list[Record]:
    """Return the records as they are if they are at most ``most``, else as many as fit, evenly spread, and say so.

    Records of one window (equal stage, epoch and step) stay or go together; records that name no window, and windows
    longer than ``most``, are thinned row by row. The cut is written into a column ``thinned`` of every row that stays.
    """
    if len(records) <= most:
        return list(records)
    windows: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        windows.setdefault(tuple(record.get(key) for key in ("stage", "epoch", "step")), []).append(record)
    largest = max(map(len, windows.values()))
    if largest > most:
        return [{**record, "thinned": f"{most} of {len(records)} rows"} for record in thin(records, most)]
    kept = thin(list(windows.values()), most // largest)
    return [{**record, "thinned": f"{len(kept)} of {len(windows)} windows"} for window in kept for record in window]


def _inert(cell: Any) -> Any:
    """Return ``cell`` so that a spreadsheet does not take a layer's name for a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@")) else cell


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
