"""What stopping saves and costs, rule by rule: chosen on one half of the runs, judged on the other."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from paper.worth.statistics import mean
from paper.worth.tables import table

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks"))  # where the rules are

from stopping import Rule, at_share, early_stopping, judged, loss_plateau, profile_rule

MOST_GIVEN_UP = 0.003
"""Accuracy that a rule may give up on average on the half on which it is chosen."""

FAMILIES: Mapping[str, Mapping[str, Rule]] = {
    "the profile has settled": {
        f"`tolerance={t:g}`": profile_rule(tolerance=t) for t in (0.003, 0.005, 0.01, 0.02, 0.03)
    },
    "`EarlyStopping` on the loss": {f"`patience={p}`": early_stopping(p) for p in (2, 3, 5, 10, 15, 20)},
    "training loss on a plateau": {
        f"fell by less than {fall:.0%}": partial(loss_plateau, fall=fall) for fall in (0.02, 0.05, 0.1, 0.2)
    },
    "always after a share": {f"{share:.0%}": at_share(share) for share in (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)},
}

FIXED: Mapping[str, Rule] = {"the profile has settled, default": profile_rule(), "always after 60 %": at_share(0.6)}
LONG = 30
"""Epochs from which on a run counts as one that goes on long enough to be stopped."""


def stopping(runs: Sequence[dict[str, Any]]) -> str:
    """Return a table of rules: as chosen on every other kind of runs, judged on those between."""
    runs = [run for run in runs if len(run["rows"]) >= LONG]
    ours, others = halves(runs)
    if len(others) < 4:
        return f"Not decided here: {len(runs)} runs of {LONG} epochs or more."
    rows = [_row(name, rule, others) for name, rule in FIXED.items()]
    for name, rules in FAMILIES.items():
        chosen = _chosen(rules, ours)
        rows.append(_row(f"{name}, {chosen}", rules[chosen], others))
    told = f"Chosen on {len(ours)} runs, judged on {len(others)} others."
    return told + "\n\n" + table(rows, ("rule", "stops", "epochs saved", "accuracy, mean (95 %)", "accuracy, worst"))


def halves(runs: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return ``runs`` in two halves, kind by kind in turns; seeds of one kind stay together."""
    kinds = sorted({_kind(run) for run in runs})
    chosen = set(kinds[::2])
    return [run for run in runs if _kind(run) in chosen], [run for run in runs if _kind(run) not in chosen]


def _kind(run: dict[str, Any]) -> str:
    return str(run["settings"]["name"]).rsplit("_s", 1)[0]


def _chosen(rules: Mapping[str, Rule], runs: Sequence[dict[str, Any]]) -> str:
    """Return the rule that saves most among those that give up little; where none does, the one that gives up least."""

    def value(name: str) -> tuple[bool, float]:
        answers = judged(runs, rules[name])
        saved, change = fmean(a[1] for a in answers), fmean(a[2] for a in answers)
        good = change >= -MOST_GIVEN_UP
        return good, saved if good else change

    return max(rules, key=value)


def _row(name: str, rule: Callable[..., int | None], runs: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    answers = judged(runs, rule)
    changes = [change for *_, change in answers]
    groups = [_kind(run) for run in runs]
    stops = sum(stop is not None for stop, *_ in answers)
    saved = fmean(share for _, share, _ in answers)
    return name, f"{stops} of {len(runs)}", f"{saved:.0%}", str(mean(changes, groups)), f"{min(changes):+.3f}"
