"""The public callbacks, each as small as it can be, and what each of them remembers in one common form."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from lightning.pytorch import Callback

from lightning_saturation import (
    DimensionMonitor,
    FreezeTraining,
    SaturationMonitor,
    SaturationStopping,
    SimilarityMonitor,
    SpectrumMonitor,
)

Make = Callable[[], list[Callback]]

NEVER = 10**6  # windows in a row, and epochs, that no test has

SPECTRUM = {"bins": 8, "spikes": 2, "probes": 2, "degree": 8, "progress": False}


def dimension(**options: Any) -> DimensionMonitor:
    return DimensionMonitor(**{"samples": 16, "stages": ("train", "val"), **options})


def similarity(**options: Any) -> SimilarityMonitor:
    return SimilarityMonitor(**{"samples": 16, **options})


def spectrum(**options: Any) -> SpectrumMonitor:
    return SpectrumMonitor(**{**SPECTRUM, **options})


def waiting() -> list[Callback]:
    """Return a ``FreezeTraining`` that judges every window and never gets to freeze anything."""
    return [SaturationMonitor(), FreezeTraining("converged", monitor="saturation", window=3, patience=NEVER)]


WATCHING: dict[str, Make] = {
    "saturation": lambda: [SaturationMonitor()],
    "saturation-steps": lambda: [SaturationMonitor(every_n_train_steps=3)],
    "stopping": lambda: [SaturationMonitor(), SaturationStopping(window=1, patience=1, min_epochs=NEVER)],
    "dimension": lambda: [dimension()],
    "similarity": lambda: [similarity()],
    "spectrum": lambda: [spectrum()],
    "freezing-waits": waiting,
}
"""Those that leave the weights as they would be without them: bitwise."""

CALLBACKS: dict[str, Make] = {**WATCHING, "freezing": lambda: [FreezeTraining("linear")]}
"""All: a linear schedule freezes, which changes weights by design."""


@dataclass(frozen=True)
class Entry:
    """One window, measurement or freeze: when it was, and its numbers by name."""

    what: str
    stage: str
    epoch: int
    step: int
    partial: bool = False
    numbers: dict[str, float] = field(default_factory=dict)

    @property
    def label(self) -> tuple[str, str, int, int]:
        return self.what, self.stage, self.epoch, self.step


def history(callbacks: Iterable[Callback]) -> list[Entry]:
    """Return all that ``callbacks`` remember of their run, callback by callback, oldest first."""
    return [entry for callback in callbacks for entry in _entries(callback)]


def _entries(callback: Callback) -> list[Entry]:
    kind = type(callback).__name__
    if isinstance(callback, SimilarityMonitor):
        return [
            Entry(kind, "train", epoch, -1, numbers={name: values[i] for name, values in callback.series.items()})
            for i, epoch in enumerate(callback.epochs)
        ]
    if isinstance(callback, FreezeTraining):
        return [Entry(kind, "train", -1, step, numbers={"frozen": float(n)}) for step, n in callback.history]
    return [_entry(kind, report) for report in getattr(callback, "reports", ())]


def _entry(kind: str, report: Any) -> Entry:
    numbers = {}
    for record in report.to_records():
        for key, value in record.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                numbers[f"{record['layer']}.{key}"] = float(value)
    stage, partial = getattr(report, "stage", "train"), getattr(report, "partial", False)
    return Entry(kind, stage, report.epoch, report.step, partial, numbers)


def same_numbers(left: dict[str, float], right: dict[str, float], *, rtol: float = 0.0) -> bool:
    """Return whether both hold the same names and, up to ``rtol``, values; a missing number is the same as another."""
    return left.keys() == right.keys() and all(
        math.isclose(value, right[key], rel_tol=rtol) or (math.isnan(value) and math.isnan(right[key]))
        for key, value in left.items()
    )


def same_history(left: list[Entry], right: list[Entry], *, rtol: float = 0.0) -> bool:
    """Return whether both are the same windows in the same order, with the same numbers."""
    return [(e.label, e.partial) for e in left] == [(e.label, e.partial) for e in right] and all(
        same_numbers(a.numbers, b.numbers, rtol=rtol) for a, b in zip(left, right, strict=True)
    )
