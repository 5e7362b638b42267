"""Figures of two networks from different seeds (SVCCA, figures 1 to 3 and section 4.4; convergent learning)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from paper.figures.style import shade, title_of

Study = Mapping[str, Any]

BASES = {
    "svcca": ("SVCCA directions", "C0-"),
    "pca": ("PCA directions", "C1--"),
    "active": ("most active neurons", "C2-."),
    "random": ("random neurons", "C3:"),
}


def toy(study: Study) -> Figure:
    """SVCCA, figures 1 and 3: neurons and directions of both networks, and outputs from few directions."""
    found = study["parts"]["toy"]
    figure, panes = plt.subplots(2, 5, figsize=(15, 5.2), layout="constrained")
    for pane, (kind, both) in zip(panes[0], found["shown"].items(), strict=False):
        for index, pair in enumerate(zip(*both, strict=True)):
            turned = np.sign(np.corrcoef(*pair)[0, 1]) or 1.0
            for rows, color, sign in zip(pair, ("C3", "C2"), (1.0, turned), strict=True):
                pane.plot(sign * np.array(rows) + 5 * index, color=color, linewidth=1)
        agreement = np.mean(found["agreement"][kind])
        pane.set(title=f"{kind}: mean |correlation| {agreement:.2f}", xticks=[], yticks=[])
        pane.title.set_fontsize(9)
    values = found["correlations"]
    panes[0, 3].plot(np.arange(1, len(values) + 1), values, "o-", markersize=3)
    panes[0, 3].set(title=f"{len(values)} SVCCA correlations", ylim=(0, 1.02), xlabel="direction")
    panes[0, 4].set_axis_off()
    for pane, (k, lines) in zip(panes[1], found["outputs"].items(), strict=True):
        pane.plot(np.array(lines).T, linewidth=1)
        told = "all 200 neurons" if k == "all" else f"{k} directions: {found['unexplained'][k]:.1%} unexplained"
        pane.set_title(told, fontsize=9)
        pane.set(xticks=[], ylim=(-1.8, 1.8))
    panes[0, 0].set_ylabel("last hidden layer of\nboth networks")
    panes[1, 0].set_ylabel("output of the first network")
    return figure


def directions(study: Study) -> Figure:
    """SVCCA, figure 2: accuracy in few directions or neurons of a layer, and with directions put on few neurons."""
    layers, spread = study["parts"]["directions"], study["parts"]["distributed"]
    whole = study["parts"]["whole"]["accuracy"]
    size = (4.2 * len(layers), 6.4)
    figure, panes = plt.subplots(2, len(layers), figsize=size, layout="constrained", sharey=True)
    for column, (name, found) in zip(panes.T, layers.items(), strict=True):
        for basis, (label, style) in BASES.items():
            column[0].plot(found["counts"], found[basis], style, marker="o", markersize=3, label=label)
        column[0].set(title=f"{name}: {found['features']} features", xlabel="directions or neurons kept")
        if name not in spread:
            column[1].set_axis_off()
            continue
        neurons = spread[name]["neurons"]
        for count, values in neurons.items():
            label = f"on {count} neurons"
            column[1].plot(spread[name]["counts"], values, "o-", color=shade(count, neurons), markersize=3, label=label)
        column[1].set(xlabel="SVCCA directions kept")
        column[1].legend(fontsize=7)
    for pane in panes.flat:
        if pane.axison:
            pane.axhline(whole, color="0.6", linewidth=1)
            pane.set_xscale("log", base=2)
    panes[0, 0].legend(fontsize=7)
    panes[0, 0].set_ylabel("test accuracy")
    figure.suptitle(f"{title_of(study)}: one layer restricted, not trained again (line: unrestricted)", fontsize=10)
    return figure


def compression(study: Study) -> Figure:
    """SVCCA, section 4.4: accuracy where the top layers, ever more of them, keep a share of their features."""
    parts = study["parts"]
    figure, axes = plt.subplots(figsize=(6.4, 4), layout="constrained")
    curves = {key: rows for key, rows in parts["compression"].items() if key != "layers"}
    for index, (key, rows) in enumerate(curves.items()):
        basis, kept = key.split(" ")
        style = "o-" if basis == "svcca" else "s--"
        flops = rows[-1][1]
        label = f"{basis.upper()}, {float(kept):.0%} of the features (all: FLOPs × {flops:.2f})"
        axes.plot(
            range(1, len(rows) + 1), [row[0] for row in rows], style, color=f"C{index % 2}", markersize=4, label=label
        )
    axes.axhline(parts["whole"]["accuracy"], color="0.6", linewidth=1)
    axes.set(xlabel="layers compressed, from the top", ylabel="test accuracy, not trained again", title=title_of(study))
    axes.legend(fontsize=7)
    return figure


def units(study: Study) -> Figure:
    """Convergent learning: correlations of matched units by layer, and losses of sparse predictions by penalty."""
    layers = study["parts"]["units"]["layers"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4), layout="constrained")
    names = [layer["layer"] for layer in layers]
    for key, label in (("bipartite", "one to one"), ("semi", "each its best")):
        left.plot(names, [layer[key] for layer in layers], "o-", label=label)
    left.set(ylabel="mean correlation of partners, held-out samples", ylim=(0, 1), title="Units of two networks")
    left.tick_params(axis="x", rotation=90)
    left.legend(fontsize=7)
    decays = [key for key in layers[0] if key.startswith("loss at decay")]
    for index, layer in enumerate(layers):
        color = shade(index, range(len(layers)))
        marks = [key.removeprefix("loss at decay ") for key in decays]
        right.plot(marks, [layer[key] for key in decays], "o-", color=color, markersize=3, label=layer["layer"])
    right.set(
        xlabel="L1 penalty",
        ylabel="loss, held-out samples (0.5: nothing)",
        title="A unit predicted from the other network's",
    )
    right.legend(fontsize=6, ncols=2)
    figure.suptitle(title_of(study), fontsize=10)
    return figure
