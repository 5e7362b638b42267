"""Intrinsic dimension over depth, trained and with random weights, and against accuracy (Ansuini et al.)."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from paper.figures.records import Record, usual
from paper.figures.style import MARKERS, NAMES, fraction, logarithmic, shade


def profiles(records: list[Record]) -> Figure | None:
    """The hunchback: TwoNN and PCA dimension over relative depth, the same networks with random weights dashed."""
    runs = [r for r in usual(records, data="photos") if _measured(r) and r.settings.seed == 0]
    runs = [r for r in runs if r.settings.model.startswith(("vgg", "resnet"))]
    runs = sorted(runs, key=lambda record: (-record.settings.width, record.settings.model))[:4]
    if not runs:
        return None
    figure, panes = plt.subplots(2, len(runs), figsize=(3.4 * len(runs), 5), layout="constrained", squeeze=False)
    for column, record in zip(panes.T, runs, strict=True):
        found = record.numbers["measured"]["dimension"]
        for weights, style in (("trained", "o-"), ("random", "s--")):
            depth = np.linspace(0, 1, len(found[weights]))
            for pane, key in zip(column, ("two_nn", "pca"), strict=True):
                values = [layer[key] for layer in found[weights].values()]
                pane.plot(depth, np.array(values, dtype=float), style, markersize=4, label=f"{weights} weights")
        column[0].set_title(f"{record.settings.model.upper()}, width {fraction(record.settings.width)}", fontsize=10)
        column[1].set_xlabel("relative depth")
        logarithmic(column[1])
    panes[0, 0].set_ylabel("TwoNN dimension")
    panes[1, 0].set_ylabel("PCA dimension (90 %)")
    panes[0, 0].legend(fontsize=7)
    return figure


def accuracy(records: list[Record]) -> Figure | None:
    """Dimension of the last hidden layer, on training images as they are, against test accuracy."""
    kinds = {data: [r for r in usual(records, data=data) if _measured(r)] for data in ("photos", "cat-dog")}
    kinds = {data: runs for data, runs in kinds.items() if len(runs) > 2}
    if not kinds:
        return None
    figure, panes = plt.subplots(1, len(kinds), figsize=(4.6 * len(kinds), 3.8), layout="constrained", squeeze=False)
    for pane, (data, runs) in zip(panes[0], kinds.items(), strict=True):
        for model in dict.fromkeys(record.settings.model for record in runs):
            members = [record for record in runs if record.settings.model == model]
            widths = {record.settings.width for record in records if record.settings.model == model}
            for index, record in enumerate(members):
                found = record.numbers["measured"]["dimension"]
                pane.scatter(
                    found["trained"][found["last_hidden"]]["two_nn"],
                    record.accuracy,
                    marker=MARKERS[model],
                    color=shade(record.settings.width, widths),
                    label=None if index else model,
                )
        pane.set(title=f"{NAMES[data]} ({len(runs)} runs)", xlabel="TwoNN dimension of the last hidden layer")
    panes[0, 0].set_ylabel("test accuracy")
    shown = {
        label: handle for pane in panes[0] for handle, label in zip(*pane.get_legend_handles_labels(), strict=True)
    }
    where = {"loc": "outside right center", "fontsize": 7, "title": "lighter: wider", "title_fontsize": 7}
    figure.legend(shown.values(), shown, **where)
    return figure


def _measured(record: Record) -> bool:
    return record.settings.task == "classify" and bool(record.numbers["measured"].get("dimension"))
