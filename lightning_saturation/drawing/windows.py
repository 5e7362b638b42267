"""The reports of one stage among many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar


class OfStage(Protocol):
    """A report of some layers in a stage."""

    @property
    def stage(self) -> str:
        """The stage."""

    @property
    def layers(self) -> Mapping[str, Any]:
        """What was measured, by layer."""


Report = TypeVar("Report", bound=OfStage)


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
