"""One trial: a configuration trained, and what its network came to."""

from __future__ import annotations

import copy
import json
import logging
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule, Trainer, seed_everything

from lightning_saturation.drawing.replacing import replacing
from lightning_saturation.saturation.monitor import SaturationMonitor
from lightning_saturation.sweeping.grid import Config, name_of
from lightning_saturation.training.progress import callbacks_of

Result = dict[str, Any]
Trial = Callable[[Config], tuple[LightningModule, Any]]
TrainerOptions = Mapping[str, Any] | Callable[[Config], Trainer | Mapping[str, Any]] | None

QUIET = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
"""Of a Trainer's arguments what many trainings at a time want; those that are given win."""


@dataclass(frozen=True)
class Setup:
    """What all trials of a sweep share."""

    trial: Trial | str | os.PathLike[str]
    out: Path
    metric: str
    trainer: TrainerOptions = None
    seed: int = 0

    def path(self, config: Config) -> Path:
        """Return the file of the result of ``config``."""
        options = self.trainer if isinstance(self.trainer, Mapping) else {}
        plain = {key: value for key, value in options.items() if isinstance(value, bool | int | float | str)}
        return self.out / "trials" / f"{name_of(config, {**plain, 'metric': self.metric, 'seed': self.seed})}.json"

    def finished(self, config: Config) -> Result | None:
        """Return the result of ``config``, or None where it has not finished."""
        path = self.path(config)
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


@contextmanager
def _without_banners() -> Iterator[None]:
    """Keep what Lightning tells of every Trainer off the terminal; its warnings stay."""
    loggers = [
        logging.getLogger(name)
        for name in ("lightning.pytorch", "lightning.fabric", "pytorch_lightning", "lightning_fabric")
    ]
    levels = [logger.level for logger in loggers]
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(max(level, logging.WARNING))
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@_without_banners()
def run(setup: Setup, config: Config, *, logger: Any = None) -> Result:
    """Train ``config`` and return its result, which is on disk by then: a file is whole or not there."""
    seed_everything(setup.seed, verbose=False)
    begin = time.perf_counter()
    if callable(setup.trial):
        given = setup.trial(dict(config))
        if not isinstance(given, tuple) or len(given) != 2:
            raise TypeError(f"Expected `trial` to return a module and its data, got {type(given).__name__}.")
        module, data = given
        trainer = _trainer(setup.trainer, config)
    else:
        module, data, trainer = _from_command_line(setup.trial, config)
    if logger is not None:
        trainer.logger = logger
    monitors = [c for c in callbacks_of(trainer) if isinstance(c, SaturationMonitor)]
    monitor = monitors[0] if monitors else SaturationMonitor(stages=("train",))
    if not monitors:
        callbacks_of(trainer).insert(0, monitor)
    _fit(trainer, module, data)
    result = {
        "config": {key: value if _is_json(value) else repr(value) for key, value in config.items()},
        "metric": setup.metric,
        "value": _value(trainer, setup.metric),
        **_measured(monitor),
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "epochs": trainer.current_epoch,
        "seconds": round(time.perf_counter() - begin, 2),
    }
    path = setup.path(config)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write_text(json.dumps(result, indent=1), encoding="utf-8")
    return result


def _from_command_line(path: str | os.PathLike[str], config: Config) -> tuple[LightningModule, Any, Trainer]:
    """Return module, data and Trainer of the LightningCLI configuration at ``path``, with ``config`` in place.

    The file names its classes (``class_path``); keys of ``config`` are those of the command line, such as
    ``"model.init_args.width"``. Raises what the command line raises, as a ``ValueError``.
    """
    from lightning.pytorch.cli import LightningCLI

    values = [f"--{key}={value}" for key, value in config.items()]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="LightningCLI's args parameter")  # beside this program's own
            cli = LightningCLI(run=False, args=["--config", os.fspath(path), *values], save_config_callback=None)
    except SystemExit as error:
        raise ValueError(f"Expected a configuration that LightningCLI accepts, got {path} with {config}.") from error
    data = cli.datamodule
    return cli.model, () if data is None else data, cli.trainer


def _trainer(options: TrainerOptions, config: Config) -> Trainer:
    given = options(dict(config)) if callable(options) else options
    if isinstance(given, Trainer):
        return given
    # Callbacks keep what they saw: each trial has its own.
    return Trainer(**{**QUIET, **copy.deepcopy(dict(given or {}))})


def _fit(trainer: Trainer, module: LightningModule, data: Any) -> None:
    if isinstance(data, LightningDataModule):
        trainer.fit(module, datamodule=data)
    elif isinstance(data, tuple | list):
        trainer.fit(module, *data)
    else:
        trainer.fit(module, data)


def _value(trainer: Trainer, metric: str) -> float:
    known = trainer.callback_metrics
    if metric not in known:
        raise ValueError(f"Expected `metric` among what was logged, {sorted(known)}, got {metric!r}.")
    return float(known[metric])


def _measured(monitor: SaturationMonitor) -> Result:
    report, diagnosis = monitor.report(), monitor.diagnose()
    return {
        "average": None if math.isnan(report.average) else report.average,
        "verdict": diagnosis.verdict,
        "findings": [{"kind": finding.kind, "layers": list(finding.layers)} for finding in diagnosis.findings],
        "layers": {name: None if math.isnan(value) else value for name, value in report.saturation.items()},
    }


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True
