"""The reports of one stage among many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

Report = TypeVar("Report", bound=Any)
"""Has a ``stage`` and, by name, ``layers``."""


def windows_of(reports: Sequence[Report], stage: str | None = None) -> list[Report]:
    """Return the reports of ``stage``, in the order given; with None of training, or of the last report's stage.

    Raises ``ValueError`` where there is none.
    """
    seen = list(dict.fromkeys(report.stage for report in reports if report.layers))
    if not seen:
        raise ValueError("Expected a window that has closed, got none: nothing has been measured yet.")
    if stage is None:
        stage = "train" if "train" in seen else seen[-1]
    if stage not in seen:
        raise ValueError(f"Expected `stage` to be one that was watched, among {seen}, got {stage!r}.")
    return [report for report in reports if report.stage == stage and report.layers]
