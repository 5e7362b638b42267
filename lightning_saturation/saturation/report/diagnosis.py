"""What a profile suggests, with the numbers that say so."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Finding:
    """One thing that a profile shows.

    ``kind`` is one of ``"underparameterised"``, ``"overparameterised tail"``, ``"bottleneck"`` and ``"too few
    samples"``; ``layers`` are those it is about (all for the network as a whole); ``evidence`` holds the numbers that
    the rule compared; ``source`` says where the rule comes from, and which part of it is a choice of ours.
    """

    kind: str
    message: str
    layers: tuple[str, ...]
    evidence: dict[str, float]
    source: str


@dataclass(frozen=True)
class Diagnosis:
    """The findings about one window; ``str`` gives the text, ``dataclasses.asdict`` plain data.

    ``notes`` name what could not be judged. Without findings there is nothing to flag, which does not mean that
    the network is right.
    """

    stage: str
    epoch: int
    average: float
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of the findings, each once."""
        return tuple(dict.fromkeys(finding.kind for finding in self.findings))

    def __str__(self) -> str:
        average = "missing" if math.isnan(self.average) else f"{self.average:.2f}"
        lines = [f"Diagnosis ({self.stage}, epoch {self.epoch}): average saturation {average}"]
        lines += [f"- {finding.kind}: {finding.message}\n    ({finding.source})" for finding in self.findings]
        lines += [] if self.findings else ["- nothing to flag"]
        return "\n".join([*lines, *(f"- not judged: {note}" for note in self.notes)])


def listed(layers: tuple[str, ...]) -> str:
    """Return the names of ``layers``, the middle ones counted rather than named where they are many."""
    if len(layers) <= 6:
        return ", ".join(layers)
    return f"{', '.join(layers[:2])}, … {len(layers) - 4} more …, {', '.join(layers[-2:])}"
