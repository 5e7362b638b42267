"""A claim of a paper: which runs speak of it, what number they give, what the number says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from paper.figures.records import Record
from paper.plan import plan
from paper.settings import Settings
from paper.studies.bench import family
from paper.studies.plan import studies as planned_studies
from paper.worth.statistics import NOTHING, Estimate, mean, rank_correlation

ENOUGH = 2 / 3
"""Share of the planned kinds of runs, seeds not counted, that must be there before a claim is decided."""

Study = Mapping[str, Any]
HOLDS, FAILS, OPEN = "holds", "does not hold", "not decided here"


@dataclass(frozen=True)
class Verdict:
    """What the records say: the ``number``, the runs behind it, holds or not."""

    number: str
    basis: str
    says: str


@dataclass(frozen=True)
class Claim:
    """``paper`` and place, the claim, the ``command`` that gives the runs, what is counted, and how to decide."""

    paper: str
    text: str
    command: str
    counted: str
    verdict: Callable[[Sequence[Record], Sequence[Study]], Verdict]


def of_runs(
    paper: str,
    text: str,
    counted: str,
    glob: str,
    speaks: Callable[[Settings], bool],
    number: Callable[[Sequence[Record]], Estimate],
    *,
    least: float = 0.0,
    extra: Callable[[Sequence[Record]], str] = lambda _: "",
) -> Claim:
    """Return a claim about single runs: that ``number`` of those that ``speaks`` names is above ``least``."""

    def verdict(records: Sequence[Record], _: Sequence[Study]) -> Verdict:
        runs = [record for record in records if speaks(record.settings)]
        wanted = [settings for settings in plan() if speaks(settings)]
        kinds, all_kinds = {family(run.settings) for run in runs}, {family(settings) for settings in wanted}
        found = number(runs) if runs else NOTHING
        basis = f"{len(runs)} of {len(wanted)} runs, {len(kinds)} of {len(all_kinds)} kinds"
        enough = len(kinds) >= ENOUGH * len(all_kinds)
        return Verdict(f"{found}{extra(runs)}" if runs else "–", basis, _says(found, least) if enough else OPEN)

    return Claim(paper, text, f"run_all.py --only '{glob}'", counted, verdict)


def of_studies(
    paper: str,
    text: str,
    counted: str,
    kind: str,
    number: Callable[[Study], float | None],
    *,
    least: float = 0.0,
    told: str = "{:+.3g}",
) -> Claim:
    """Return a claim about studies: that ``number`` is above ``least`` in every one; each is told by itself."""

    def verdict(_: Sequence[Record], studies: Sequence[Study]) -> Verdict:
        done = [study for study in studies if study["kind"] == kind]
        wanted = [study for study in planned_studies() if study.kind == kind]
        found = {study["name"].removeprefix(f"{kind}_"): number(study) for study in done}
        values = {name: value for name, value in found.items() if value is not None}
        text = "; ".join(f"{told.format(value)} ({name})" for name, value in values.items())
        held = {value > least for value in values.values()}
        enough = len(done) >= ENOUGH * len(wanted)
        says = OPEN if not enough or not held else HOLDS if held == {True} else FAILS if held == {False} else "in part"
        return Verdict(text or "–", f"{len(done)} of {len(wanted)} studies", says)

    return Claim(paper, text, f"run_all.py --only '{kind}*'", counted, verdict)


def correlation(
    x: Callable[[Record], float], y: Callable[[Record], float], *, sign: int = 1
) -> Callable[[Sequence[Record]], Estimate]:
    """Return the rank correlation of two numbers of a run over runs, turned so that the claim is a positive one."""

    def number(runs: Sequence[Record]) -> Estimate:
        return rank_correlation([sign * x(run) for run in runs], [y(run) for run in runs], _groups(runs))

    return number


def average(value: Callable[[Record], float | None]) -> Callable[[Sequence[Record]], Estimate]:
    """Return the mean over runs of a number of each; runs that have none do not count."""

    def number(runs: Sequence[Record]) -> Estimate:
        pairs = [
            (found, group) for run, group in zip(runs, _groups(runs), strict=True) if (found := value(run)) is not None
        ]
        return mean([a for a, _ in pairs], [b for _, b in pairs]) if pairs else NOTHING

    return number


def matched(
    runs: Sequence[Record], one: str, other: str, value: Callable[[Record], float]
) -> Iterator[tuple[float, str]]:
    """Yield the difference of a number between the same network on two problems, means over seeds, and its name."""
    by_kind: dict[tuple[Any, ...], dict[str, list[float]]] = {}
    for run in runs:
        key = run.settings.model, run.settings.width
        by_kind.setdefault(key, {}).setdefault(run.settings.data, []).append(value(run))
    for key, found in by_kind.items():
        if one in found and other in found:
            yield float(np.mean(found[one]) - np.mean(found[other])), str(key)


def _groups(runs: Sequence[Record]) -> list[str]:
    return [family(run.settings) for run in runs]


def _says(found: Estimate, least: float) -> str:
    if np.isnan(found.low):
        return OPEN
    if found.low > least:
        return HOLDS
    return FAILS if found.high <= least else "not decided by these runs"
