"""Which logger can take what, found out without importing any of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from lightning_saturation.loggers.adapter import Sink
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
    taken = True
    for logger in loggers:
        taken &= attempt(type(logger).__name__, partial(_write, logger, write))
    return taken


def attempt(name: str, write: Callable[[], object]) -> bool:
    """Call ``write`` and return whether that went well; what it raises becomes a warning about ``name``."""
    try:
        write()
    except Exception as error:
        what = str(error).partition("\n")[0]
        warnings.warn(f"{name} could not be written to; training goes on. {type(error).__name__}: {what}", stacklevel=3)
        return False
    return True


def _write(logger: Any, write: Callable[[Sink], None]) -> None:
    write(sink_for(logger))
