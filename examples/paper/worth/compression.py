"""``compress`` against cutting the weights themselves, to the same multiplications and additions."""

from __future__ import annotations

from collections.abc import Sequence

from paper.figures.records import Record
from paper.measure import DELTAS
from paper.studies.bench import family
from paper.worth.statistics import mean
from paper.worth.tables import table


def compression(records: Sequence[Record]) -> str:
    """Return a table of accuracies given up at each share of variance, by way of cutting."""
    runs = [run for run in records if run.settings.task == "classify" and run.numbers["measured"].get("pruning")]
    if not runs:
        return "Not decided here: no finished run has weights cut by other means."
    rows = []
    for delta in (f"{delta:g}" for delta in DELTAS):
        groups = [family(run.settings) for run in runs]
        measured = [run.numbers["measured"] for run in runs]
        lost = {
            kind: [found[delta]["accuracy"] - m["projection"]["whole"]["accuracy"] for m, found in cut]
            for kind, cut in {
                "compress": [(m, m["compression"]) for m in measured],
                "svd": [(m, {delta: m["pruning"][delta]["svd"]}) for m in measured],
                "magnitude": [(m, {delta: m["pruning"][delta]["magnitude"]}) for m in measured],
            }.items()
        }
        flops = sum(m["pruning"][delta]["flops"] for m in measured) / len(measured)
        rows.append((delta, f"{flops:.2f}", *(str(mean(values, groups)) for values in lost.values())))
    head = ("variance kept", "FLOPs ×", "`compress`", "truncated SVD of the weights", "smallest weights to nought")
    return f"{len(runs)} runs; accuracy against the whole network, without training again.\n\n" + table(rows, head)
