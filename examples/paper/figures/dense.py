"""Dense networks of hidden widths 8 to 128 (Shenk et al., figures 4 to 8 and 12)."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from paper.figures.records import Record, grouped, usual
from paper.figures.style import NAMES, band, shade, whole_epochs
from paper.plan import HIDDEN as HIDDEN_UNITS

HIDDEN = "network.hidden"


def accuracy(records: list[Record]) -> Figure | None:
    """Figures 5 and 8: saturation of the second layer against test accuracy, by hidden width and problem."""
    kinds = {data: usual(records, model="mlp", data=data) for data in ("photos", "cat-dog")}
    kinds = {data: runs for data, runs in kinds.items() if runs}
    if not kinds:
        return None
    figure, panes = plt.subplots(1, len(kinds), figsize=(4.6 * len(kinds), 3.8), layout="constrained", squeeze=False)
    for pane, (data, runs) in zip(panes[0], kinds.items(), strict=True):
        groups = grouped(runs, lambda settings: settings.width)
        for width, members in groups.items():
            x = [record.numbers["train"]["saturation"][HIDDEN][-1] for record in members]
            y = [record.accuracy for record in members]
            pane.scatter(x, y, color=shade(width, HIDDEN_UNITS), label=f"{width:g} units", s=28)
        pane.set(title=f"{NAMES[data]} ({len(runs)} runs)", xlabel="saturation of the hidden layer, last epoch")
    panes[0, 0].set_ylabel("test accuracy after 20 epochs")
    handles = {
        label: handle for pane in panes[0] for handle, label in zip(*pane.get_legend_handles_labels(), strict=True)
    }
    units = sorted(handles, key=lambda label: float(label.split()[0]))
    figure.legend([handles[label] for label in units], units, loc="outside right center", fontsize=8)
    return figure


def training(records: list[Record]) -> Figure | None:
    """Figures 4, 6, 7 and 12: saturation of the second layer beside validation and training loss, over epochs."""
    kinds = {data: usual(records, model="mlp", data=data) for data in ("photos", "cat-dog")}
    kinds = {data: runs for data, runs in kinds.items() if runs}
    if not kinds:
        return None
    figure, panes = plt.subplots(len(kinds), 3, figsize=(11, 3.1 * len(kinds)), layout="constrained", squeeze=False)
    for row, (data, runs) in zip(panes, kinds.items(), strict=True):
        groups = grouped(runs, lambda settings: settings.width)
        for width, members in groups.items():
            color = shade(width, HIDDEN_UNITS)
            hidden = [record.numbers["train"]["continuous_saturation"][HIDDEN] for record in members]
            band(row[0], np.array(hidden, dtype=float), color=color, label=f"{width:g} units")
            for pane, key in ((row[1], "val/loss"), (row[2], "train/loss")):
                band(pane, np.array([record.over_epochs(key) for record in members]), color=color)
        for pane, title in zip(row, ("saturation of the hidden layer", "test loss", "training loss"), strict=True):
            pane.set_title(f"{NAMES[data]}: {title}", fontsize=10)
            whole_epochs(pane)
    panes[0, 0].legend(fontsize=7)
    return figure
