"""The records of finished runs, by what they have in common."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from paper.settings import Settings


@dataclass(frozen=True)
class Record:
    """One run: its settings and the numbers of its file."""

    settings: Settings
    numbers: dict[str, Any]

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def accuracy(self) -> float:
        """Share of the test images found after the last epoch."""
        return float(self.numbers["rows"][-1]["val/accuracy"])

    @property
    def inner(self) -> list[str]:
        """Names of the layers that count in the average, in the order in which they run."""
        train = self.numbers["train"]
        return [layer for layer in train["layers"] if layer not in train["output"]]

    def over_epochs(self, key: str) -> np.ndarray:
        """Return what was logged under ``key``, by epoch."""
        return np.array([row[key] for row in self.numbers["rows"]])

    def profile(self, stage: str = "train", *, statistic: str = "saturation") -> np.ndarray:
        """Return ``statistic`` by epoch and inner layer."""
        values = self.numbers[stage][statistic]
        return np.array([values[layer] for layer in self.inner], dtype=float).T

    @property
    def average(self) -> float:
        """Average saturation over the inner layers in the last epoch of training (equation 2)."""
        return float(self.profile()[-1].mean())


def load(folder: Path) -> list[Record]:
    """Return all finished runs under ``folder``, in the order of their names."""
    known = {field.name for field in fields(Settings)}
    found = []
    for file in sorted(folder.glob("*.json")):
        numbers = json.loads(file.read_text(encoding="utf-8"))
        if numbers["finished"]:
            settings = {key: value for key, value in numbers["settings"].items() if key in known}
            found.append(Record(Settings(**settings), numbers))
    return found


def usual(records: Iterable[Record], **settings: Any) -> list[Record]:
    """Return the runs with these ``settings`` and in everything else the paper's training, whatever their seed."""
    return [
        record
        for record in records
        if all(getattr(record.settings, key) in _several(value) for key, value in settings.items())
        and like_the_paper(record.settings)
    ]


def grouped(records: Iterable[Record], key: Callable[[Settings], Any]) -> dict[Any, list[Record]]:
    """Return the runs by ``key`` of their settings, smallest first."""
    groups: dict[Any, list[Record]] = defaultdict(list)
    for record in records:
        groups[key(record.settings)].append(record)
    return dict(sorted(groups.items()))


def _several(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, tuple | list | set) else (value,)


def like_the_paper(settings: Settings) -> bool:
    """Return whether training, apart from network, data and seed, is that of Shenk et al."""
    own = Settings(settings.model, settings.width, settings.data, settings.seed)
    # The auto-encoder takes images as they are, in the source too.
    same = ("epochs", "batch_size", "optimizer", "learning_rate", "weight_decay", "schedule", "limit")
    return all(getattr(settings, key) == getattr(own, key) for key in same)
