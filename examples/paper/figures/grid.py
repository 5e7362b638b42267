"""VGG networks of several depths and widths (Shenk et al., figures 1, 9, 10, 11, 13, 15, 16)."""

from __future__ import annotations

from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from paper.figures.records import Record, grouped, usual
from paper.figures.style import MARKERS, NAMES, fraction, shade, whole_epochs

DEPTHS = ("vgg11", "vgg13", "vgg16", "vgg19")


def scatter(records: list[Record]) -> Figure | None:
    """Figures 9 and 13: average saturation against test accuracy, by depth and width, a pane for each problem."""
    kinds = {data: usual(records, model=DEPTHS, data=data) for data in ("photos", "unbalanced", "cat-dog")}
    kinds = {data: runs for data, runs in kinds.items() if runs}
    if not kinds:
        return None
    widths = sorted({record.settings.width for runs in kinds.values() for record in runs})
    figure, panes = plt.subplots(1, len(kinds), figsize=(4.4 * len(kinds), 3.9), layout="constrained", squeeze=False)
    for pane, (data, runs) in zip(panes[0], kinds.items(), strict=True):
        for record in runs:
            settings = record.settings
            color = shade(settings.width, widths)
            pane.scatter(record.average, record.accuracy, marker=MARKERS[settings.model], color=color, s=36)
        pane.axvline(0.45, color="0.7", linestyle=":", linewidth=1)
        pane.set(title=f"{NAMES[data]} ({len(runs)} runs)", xlabel="average saturation, last epoch")
    panes[0, 0].set_ylabel("test accuracy after 20 epochs")
    figure.legend(handles=_keys(widths), fontsize=7, loc="outside right center")
    return figure


def losses(records: list[Record]) -> Figure | None:
    """Figure 14: average saturation against training and test loss, by depth and width, a row for each problem."""
    kinds = {data: usual(records, model=DEPTHS, data=data) for data in ("photos", "cat-dog")}
    kinds = {data: runs for data, runs in kinds.items() if runs}
    if not kinds:
        return None
    widths = sorted({record.settings.width for runs in kinds.values() for record in runs})
    figure, panes = plt.subplots(len(kinds), 2, figsize=(8.6, 3.6 * len(kinds)), layout="constrained", squeeze=False)
    for row, (data, runs) in zip(panes, kinds.items(), strict=True):
        for pane, key, told in zip(row, ("train/loss", "val/loss"), ("training", "test"), strict=True):
            for record in runs:
                settings = record.settings
                value = record.over_epochs(key)[-1]
                color = shade(settings.width, widths)
                pane.scatter(record.average, value, marker=MARKERS[settings.model], color=color, s=36)
            pane.set(title=f"{NAMES[data]}: {told} loss ({len(runs)} runs)", xlabel="average saturation, last epoch")
    figure.legend(handles=_keys(widths), fontsize=7, loc="outside right center")
    return figure


def profiles(records: list[Record], data: str) -> Figure | None:
    """Figures 1, 15 and 16: saturation by layer, a row for each width, a column for each depth."""
    runs = usual(records, model=DEPTHS, data=data)
    if not runs:
        return None
    widths = sorted({record.settings.width for record in runs})
    depths = [depth for depth in DEPTHS if any(record.settings.model == depth for record in runs)]
    size = (3.2 * len(depths) + 0.6, 2.1 * len(widths) + 0.4)
    figure, panes = plt.subplots(
        len(widths), len(depths), figsize=size, sharey=True, layout="constrained", squeeze=False
    )
    groups = grouped(runs, lambda settings: (settings.width, settings.model))
    for row, width in zip(panes, widths, strict=True):
        for pane, depth in zip(row, depths, strict=True):
            members = groups.get((width, depth), [])
            if not members:
                pane.set_axis_off()
                continue
            last = np.array([record.profile()[-1] for record in members])
            places = np.arange(last.shape[1])
            pane.bar(places, last.mean(0), color=shade(width, widths))
            if len(last) > 1:
                pane.vlines(places, last.min(0), last.max(0), color="0.2", linewidth=1)
            found = f"{np.mean([record.accuracy for record in members]):.1%}"
            pane.set_title(f"{depth.upper()}, width {fraction(width)}: {found}", fontsize=9)
            pane.set(ylim=(0, 1), xticks=[])
        row[0].set_ylabel("saturation")
    for pane in panes[-1]:
        pane.set_xlabel("layers, in their order")
    said = f"{NAMES[data]}: saturation by layer, test accuracy (line: range over seeds)"
    figure.suptitle(fill(said, 40 * panes.shape[1]), fontsize=10)
    return figure


def problems(records: list[Record]) -> Figure | None:
    """Figure 10: the same network on the harder and on the simpler problem."""
    both = {data: usual(records, model=DEPTHS, data=data) for data in ("photos", "cat-dog")}
    key = {data: grouped(runs, lambda settings: (settings.model, settings.width)) for data, runs in both.items()}
    shared = sorted(set(key["photos"]) & set(key["cat-dog"]), key=lambda pair: (-pair[1], pair[0]))[:3]
    if not shared:
        return None
    figure, panes = plt.subplots(1, len(shared), figsize=(4 * len(shared), 3.3), layout="constrained", squeeze=False)
    for pane, (depth, width) in zip(panes[0], shared, strict=True):
        for data, color in (("photos", "C0"), ("cat-dog", "C1")):
            last = np.array([record.profile()[-1] for record in key[data][depth, width]])
            mean = np.mean([record.average for record in key[data][depth, width]])
            pane.plot(last.mean(0), "o-", color=color, markersize=3, label=f"{NAMES[data]}, average {mean:.2f}")
        pane.set(title=f"{depth.upper()}, width {fraction(width)}", xlabel="layers, in their order", ylim=(0, 1))
        pane.legend(fontsize=7)
    panes[0, 0].set_ylabel("saturation after 20 epochs")
    return figure


def evolution(records: list[Record]) -> Figure | None:
    """Figure 11: saturation by layer over epochs, narrow and wide, shallow and deep."""
    runs = [record for record in usual(records, model=DEPTHS, data="photos") if record.settings.seed == 0]
    if not runs:
        return None
    groups = grouped(runs, lambda settings: (settings.width, settings.model))
    widths, depths = ([f(key[i] for key in groups) for f in (min, max)] for i in (0, 1))
    chosen = [groups[key][0] for key in dict.fromkeys((w, d) for w in widths for d in depths) if key in groups]
    figure, panes = plt.subplots(
        1, len(chosen), figsize=(3.6 * len(chosen) + 0.8, 3.2), layout="constrained", squeeze=False
    )
    for pane, record in zip(panes[0], chosen, strict=True):
        # continuous saturation: the number of directions is a whole one, and jumps
        values = record.profile(statistic="continuous_saturation").T
        extent = (0.5, values.shape[1] + 0.5, len(values) - 0.5, -0.5)
        shown = pane.imshow(values, aspect="auto", vmin=0, vmax=1, interpolation="nearest", extent=extent)
        whole_epochs(pane)
        title = f"{record.settings.model.upper()}, width {fraction(record.settings.width)}: {record.accuracy:.1%}"
        pane.set(yticks=range(len(record.inner)))
        pane.set_title(title, fontsize=10)
        pane.set_yticklabels([layer.removeprefix("network.") for layer in record.inner], fontsize=6)
    figure.colorbar(shown, ax=panes[0, -1], label="saturation")
    return figure


def _keys(widths: list[float]) -> list[Line2D]:
    """Return what a legend says of depths and ``widths``."""
    plain = {"linestyle": "", "color": "0.3"}
    keys = [Line2D([], [], marker=MARKERS[depth], label=depth.upper(), **plain) for depth in DEPTHS]
    return keys + [
        Line2D([], [], marker="o", linestyle="", color=shade(width, widths), label=f"width {fraction(width)}")
        for width in widths
    ]
