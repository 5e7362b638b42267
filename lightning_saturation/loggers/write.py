"""One kind of finding to every logger that can take it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from matplotlib.figure import Figure

from lightning_saturation.loggers.adapter import Record
from lightning_saturation.loggers.dispatch import to_each


def write_scalars(loggers: Iterable[Any], scalars: Mapping[str, float], *, step: int) -> bool:
    """Write ``scalars`` to every logger and return whether all took them; NaN ones are left out."""
    return to_each(loggers, lambda sink: sink.scalars(scalars, step=step))


def write_config(loggers: Iterable[Any], name: str, arguments: Mapping[str, Any]) -> None:
    """Write ``arguments``, plain data, under ``name`` into the configuration of every W&B run."""
    to_each(loggers, lambda sink: sink.config(name, arguments))


def write_figure(loggers: Iterable[Any], key: str, draw: Callable[[], Figure], *, step: int) -> None:
    """Write the figure that ``draw`` returns as a picture to W&B, TensorBoard and MLflow; else it is not drawn."""
    once = cache(draw)
    to_each(loggers, lambda sink: sink.figure(key, once(), step=step) if sink.draws else None)


def write_table(loggers: Iterable[Any], key: str, records: Sequence[Record], *, step: int) -> None:
    """Write one row per record to W&B (a table), TensorBoard (text) and MLflow (a CSV file).

    The columns are those of all records together; a value that is absent, None or NaN is written as missing.
    """
    to_each(loggers, lambda sink: sink.table(key, records, step=step))


def write_text(loggers: Iterable[Any], key: str, text: str, *, step: int) -> None:
    """Write ``text`` to W&B (the run's summary), TensorBoard and MLflow (a text file)."""
    to_each(loggers, lambda sink: sink.text(key, text, step=step))


def layer_key(layer: str) -> str:
    """Return the end of the key of ``layer``: charts are grouped by what comes before the last slash.

    >>> layer_key("body/first")
    'layers/body_first'
    """
    return f"layers/{layer.replace('/', '_')}"
