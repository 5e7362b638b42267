"""Whether early saturation tells which network will be better: beside early training loss and early accuracy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from paper.figures.records import Record, usual
from paper.studies.bench import family
from paper.worth.statistics import rank_correlation, within
from paper.worth.tables import table

SHARES = (0.05, 0.1, 0.25)
PROBLEMS = ("photos", "cat-dog", "unbalanced")

SIGNALS: dict[str, tuple[Callable[[Record, int], float], int]] = {
    "average saturation": (lambda run, epoch: float(run.profile()[epoch].mean()), -1),
    "training loss": (lambda run, epoch: float(run.over_epochs("train/loss")[epoch]), -1),
    "training accuracy": (lambda run, epoch: float(run.over_epochs("train/accuracy")[epoch]), 1),
    "test accuracy": (lambda run, epoch: float(run.over_epochs("val/accuracy")[epoch]), 1),
}
"""By name the number of a run after an epoch, and the sign by which it should go with accuracy."""


def ranking(records: Sequence[Record]) -> str:
    """Return a table of rank correlations with final accuracy, each signal turned so that more should be better."""
    rows = []
    for data in PROBLEMS:
        runs = [r for r in usual(records, data=data) if r.settings.task == "classify"]
        if len(runs) < 4:
            continue
        final = [np.mean(run.over_epochs("val/accuracy")[-3:]) for run in runs]
        groups, depths = [family(run.settings) for run in runs], [run.settings.model for run in runs]
        for share in SHARES:
            for name, (signal, sign) in SIGNALS.items():
                early = [sign * signal(run, max(1, round(share * run.settings.epochs)) - 1) for run in runs]
                everywhere = rank_correlation(early, final, groups)
                equal = within(early, final, depths, groups)
                rows.append((data, f"{share:.0%}", name, f"{len(runs)}", str(everywhere), str(equal)))
    head = ("problem", "of training", "signal", "runs", "all networks", "within equal depth")
    return table(rows, head) if rows else "No problem has four finished runs yet."
