"""Which configurations a sweep has, and what they are called."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Config = dict[str, Any]
Grid = Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Sequence[Any]]]

_LONGEST = 80


def configs(grid: Grid) -> list[Config]:
    """Return every combination of the values of ``grid``, or of each grid in a list, as scikit-learn understands it.

    Raises ``ImportError`` without scikit-learn, and ``ValueError`` or ``TypeError`` for what is no such grid.
    """
    try:
        from sklearn.model_selection import ParameterGrid
    except ImportError as error:
        raise ImportError("A sweep needs scikit-learn and joblib: pip install 'lightning-saturation[sweep]'") from error
    return [dict(config) for config in ParameterGrid(grid)]


def name_of(config: Config, surroundings: Mapping[str, Any]) -> str:
    """Return a file name for ``config`` that no other one has, nor the same one in other ``surroundings``."""
    plain = json.dumps([config, surroundings], sort_keys=True, default=_called)
    readable = "-".join(f"{key}={_called(value)}" for key, value in sorted(config.items()))
    readable = re.sub(r"[^A-Za-z0-9=.+_-]+", "_", readable)[:_LONGEST].strip("._-")
    return f"{readable or 'trial'}-{hashlib.sha256(plain.encode()).hexdigest()[:8]}"


def title_of(config: Config) -> str:
    """Return ``config`` in one line."""
    return ", ".join(f"{key}={_called(value)}" for key, value in config.items())


def varied(several: Sequence[Config]) -> list[Config]:
    """Return of each configuration what is not the same in all, or all of it where nothing differs.

    >>> varied([{"width": 4, "epochs": 9}, {"width": 8, "epochs": 9}])
    [{'width': 4}, {'width': 8}]
    """
    known = list(dict.fromkeys(name for config in several for name in config))
    names = [name for name in known if len({repr(config.get(name, ...)) for config in several}) > 1] or known
    return [{name: config[name] for name in names if name in config} for config in several]


def wandb_sweep(grid: Grid, *, metric: str, maximize: bool) -> dict[str, Any] | None:
    """Return what ``wandb sweep`` reads: the program that runs now, once for each combination; None where it cannot.

    W&B knows one grid of plain values, and a program is a file.
    """
    program = Path(sys.argv[0])
    plain = isinstance(grid, Mapping) and all(_is_plain(value) for values in grid.values() for value in values)
    if not isinstance(grid, Mapping) or not plain or not program.is_file():
        return None
    return {
        "program": str(program),
        "method": "grid",
        "metric": {"name": metric, "goal": "maximize" if maximize else "minimize"},
        "command": ["${env}", "${interpreter}", "${program}", *sys.argv[1:]],  # the values come from the agent itself
        "parameters": {name: {"values": list(values)} for name, values in grid.items()},
    }


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def _called(value: Any) -> str:
    return str(getattr(value, "__qualname__", value))
