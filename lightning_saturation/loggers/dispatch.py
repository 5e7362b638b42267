"""One kind of finding to every logger that can take it; which can is found out without importing any of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from typing import Any

from matplotlib.figure import Figure

from lightning_saturation.loggers.adapter import Record, Sink
from lightning_saturation.loggers.mlflow import MLflowSink
from lightning_saturation.loggers.tensorboard import TensorBoardSink
from lightning_saturation.loggers.wandb import WandbSink


def sink_for(logger: Any) -> Sink:
    """Return the sink that knows ``logger`` best.

    Loggers are known by the names of their classes, because ``lightning.pytorch`` and ``pytorch_lightning`` hold two
    unrelated classes of each name; anything that draws pictures as a TensorBoard writer does is taken for one.
    """
    names = {cls.__name__ for cls in type(logger).__mro__}
    if "WandbLogger" in names:
        return WandbSink(logger)
    if "MLFlowLogger" in names:
        return MLflowSink(logger)
    # The Trainer's stand-in during trial runs claims to have every method there is.
    if "DummyLogger" not in names and hasattr(getattr(logger, "experiment", None), "add_histogram"):
        return TensorBoardSink(logger)
    return Sink(logger)


def to_each(loggers: Iterable[Any], write: Callable[[Sink], None]) -> bool:
    """Call ``write`` with the sink of every logger and return whether all took it; what one raises becomes a warning.

    A finished run, a full disk or a lost connection must not end a training of days. The warning is worded the same
    every time, so that Python shows it once.
    """
    taken = [attempt(type(logger).__name__, partial(lambda to: write(sink_for(to)), logger)) for logger in loggers]
    return all(taken)


def attempt(name: str, write: Callable[[], object]) -> bool:
    """Call ``write`` and return whether that went well; what it raises becomes a warning about ``name``."""
    try:
        write()
    except Exception as error:
        what = str(error).partition("\n")[0]
        warnings.warn(f"{name} could not be written to; training goes on. {type(error).__name__}: {what}", stacklevel=3)
        return False
    return True


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
