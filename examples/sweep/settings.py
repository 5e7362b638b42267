"""What one trial is, and the grid of trials that a sweep's YAML file spells out."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

ARCHITECTURE = ("model", "width")


@dataclass(frozen=True)
class Settings:
    """One architecture on one data set; the names are the command line's options and the sweep's parameters."""

    model: str = "vgg11"
    width: float = 0.25
    epochs: int = 8
    batch_size: int = 128
    learning_rate: float = 1e-3
    data: str | None = None
    limit: int | None = None
    size: int | None = None
    augment: bool = False
    seed: int = 0

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Settings:
        """Return the settings with these ``values``; a ValueError names those that no trial knows."""
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(values) - set(known)):
            raise ValueError(f"Expected parameters among {', '.join(known)}, got {', '.join(unknown)}.")
        return cls(**values)

    @property
    def surroundings(self) -> dict[str, Any]:
        """Everything but the architecture: only trials that agree in it can be compared."""
        return {key: value for key, value in asdict(self).items() if key not in ARCHITECTURE}

    @property
    def name(self) -> str:
        """A file name that no other settings have."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:8]
        return f"{self.model}-width{self.width:g}-{digest}"


def grid(path: Path, overrides: Mapping[str, Sequence[Any]]) -> list[Settings]:
    """Return the trials of the grid sweep in the YAML file ``path``, with ``overrides`` in place of its own values.

    Raises ValueError for a search that is no grid, or a parameter with neither ``value`` nor ``values``.
    """
    import yaml

    sweep = yaml.safe_load(path.read_text())
    if sweep.get("method") != "grid":
        raise ValueError(f"Expected `method: grid` in {path}, got {sweep.get('method')!r}: only a grid runs locally.")
    axes = {}
    for name, parameter in sweep["parameters"].items():
        if not {"value", "values"} & set(parameter):
            raise ValueError(f"Expected `value` or `values` for {name} in {path}, got {sorted(parameter)}.")
        axes[name] = parameter["values"] if "values" in parameter else [parameter["value"]]
    return product({**axes, **overrides})


def product(axes: Mapping[str, Sequence[Any]]) -> list[Settings]:
    """Return the settings at every combination of the values of ``axes``."""
    return [Settings.of(dict(zip(axes, point, strict=True))) for point in itertools.product(*axes.values())]
