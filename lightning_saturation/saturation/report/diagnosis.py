"""What a profile suggests, with the numbers that say so."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from lightning_saturation.drawing.tabulated import html_list

Certainty = Literal["certain", "likely", "possible"]


@dataclass(frozen=True)
class Finding:
    """One thing that a profile shows.

    ``kind`` is one of ``"too narrow"``, ``"bottleneck"``, ``"tail"``, ``"too wide"`` and ``"too few samples"``;
    ``layers`` are those it is about (all for the network as a whole); ``evidence`` holds the numbers that the rule
    compared; ``source`` says where the rule comes from, and which part of it is a choice of ours. ``advice`` is what to
    try next, ``sure`` how sure it is to help: ``"certain"`` follows from the numbers, ``"likely"`` did in most of the
    runs that we know, ``"possible"`` is worth a try. ``brief`` is the finding in a few words.
    """

    kind: str
    message: str
    layers: tuple[str, ...]
    evidence: dict[str, float]
    source: str
    advice: str = ""
    sure: Certainty = "possible"
    brief: str = ""


@dataclass(frozen=True, repr=False)
class Diagnosis:
    """The findings about one window; ``str`` gives the text, the ``verdict`` first, ``dataclasses.asdict`` plain data.

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

    @property
    def verdict(self) -> str:
        """One sentence: the weightiest finding with what to try, and what else there is."""
        if not self.findings:
            if math.isnan(self.average):
                return "Nothing was measured, so that nothing can be said."
            if self.notes:
                return f"On average layers use {percent(self.average)} of their features; {self.notes[0]}."
            used = f"on average layers use {percent(self.average)} of their features"
            return f"No layer stands out: {used}, and nothing asks for other widths."
        first, *others = self.findings
        also = ", ".join(dict.fromkeys(finding.brief for finding in others))
        sentence = f"{first.kind.capitalize()}: {first.message}; {first.advice}"
        return f"{sentence} (also: {also})." if also else f"{sentence}."

    def __repr__(self) -> str:
        return f"Diagnosis({self.stage}, epoch {self.epoch}: {', '.join(self.kinds) or 'nothing to flag'})"

    def _repr_html_(self) -> str:
        findings = [(f"{f.kind}: {f.message}", f"{f.advice} ({f.sure})", f"({f.source})") for f in self.findings]
        return html_list(self.verdict, [*findings, *((f"not judged: {note}",) for note in self.notes)])

    def __str__(self) -> str:
        average = "missing" if math.isnan(self.average) else f"{self.average:.2f}"
        lines = [self.verdict, f"Diagnosis ({self.stage}, epoch {self.epoch}): average saturation {average}"]
        for finding in self.findings:
            lines += [f"- {finding.kind}: {finding.message}", f"    {finding.advice} ({finding.sure})"]
            lines.append(f"    ({finding.source})")
        lines += [] if self.findings else ["- nothing to flag"]
        return "\n".join([*lines, *(f"- not judged: {note}" for note in self.notes)])


def percent(share: float) -> str:
    """Return ``share`` as a whole percentage."""
    return f"{100 * share:.0f} %"


def listed(layers: tuple[str, ...]) -> str:
    """Return the names of ``layers``, the middle ones counted rather than named where they are many."""
    if len(layers) <= 6:
        return ", ".join(layers)
    return f"{', '.join(layers[:2])}, … {len(layers) - 4} more …, {', '.join(layers[-2:])}"
