"""A trial from the configuration file of a LightningCLI."""

from __future__ import annotations

import os
import warnings
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from lightning_saturation.sweeping.grid import Config


def from_command_line(path: str | os.PathLike[str], config: Config) -> tuple[LightningModule, Any, Trainer]:
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
