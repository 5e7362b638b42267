"""Figures of training: layers that settle, freezing, spectra (SVCCA, figures 4 to 7; eigenvalue decay, section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from paper.figures.style import band, logarithmic, shade, title_of, whole_epochs

Study = Mapping[str, Any]


def dynamics(study: Study) -> Figure:
    """SVCCA, figure 4: layers during training against layers at its end, and each against the epoch before."""
    found = study["parts"]["dynamics"]
    panes_of = found["panes"]
    count = len(panes_of)
    figure, panes = plt.subplots(1, count + 1, figsize=(3.1 * (count + 1) + 1, 3.4), layout="constrained")
    for pane, (share, matrix) in zip(panes, panes_of.items(), strict=False):
        shown = pane.imshow(np.array(matrix["values"], dtype=float), vmin=0, vmax=1, cmap="magma")
        pane.set(title=f"{float(share):.0%} trained", xlabel="layer, end of training", xticks=[], yticks=[])
    panes[0].set_ylabel("layer, during training")
    figure.colorbar(shown, ax=panes[count - 1], label="SVCCA similarity")
    series = found["series"]
    for index, (name, values) in enumerate(series.items()):
        epochs = np.array(found["epochs"][-len(values) :]) + 1
        label = name.removeprefix("network.")
        panes[-1].plot(epochs, np.array(values, dtype=float), color=shade(index, range(len(series))), label=label)
    panes[-1].set_title("each layer with the epoch before", fontsize=10)
    panes[-1].legend(fontsize=5)
    whole_epochs(panes[-1])
    figure.suptitle(f"{title_of(study)}, test accuracy {found['accuracy']:.1%}", fontsize=10)
    return figure


def classes(study: Study) -> Figure:
    """SVCCA, figure 6: how strongly each layer correlates with the logit of each class."""
    found = study["parts"]["classes"]
    names = ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    figure, axes = plt.subplots(figsize=(6.4, 4), layout="constrained")
    curves = np.array(list(found.values()), dtype=float)
    for index, curve in enumerate(curves.T):
        label = names[index] if curves.shape[1] == 10 else ("cat", "dog")[index]
        axes.plot(curve, "o-", markersize=3, color=f"C{index}", label=label)
    axes.set_xticks(range(len(found)), found, rotation=90, fontsize=8)
    axes.set(ylabel="canonical correlation with the logit", title=title_of(study))
    axes.legend(fontsize=7)
    return figure


def freezing(study: Study) -> Figure:
    """SVCCA, figure 5: test accuracy over epochs with layers frozen and without."""
    figure, axes = plt.subplots(figsize=(6.4, 4), layout="constrained")
    time: dict[str, float] = {}
    for index, kind in enumerate(("plain", "linear", "converged")):
        parts = [part for name, part in study["parts"].items() if name.startswith(kind)]
        time[kind] = sum(sum(part["processor_seconds"]) for part in parts)
        told = "all layers learn" if kind == "plain" else f"{kind}: time × {time[kind] / time['plain']:.2f}"
        curves = np.array([part["val/accuracy"] for part in parts], dtype=float)
        band(axes, curves, color=f"C{index}", label=f"{told}, ends at {curves[:, -3:].mean():.3f}")
    axes.set(ylabel="test accuracy", title=f"{title_of(study)}: seeds: {len(parts)}")
    axes.legend(fontsize=7)
    whole_epochs(axes)
    return figure


def architectures(study: Study) -> Figure:
    """SVCCA, figure 7: layers of one family against layers of another, by DFT-CCA."""
    found = study["parts"]["matrix"]
    figure, axes = plt.subplots(figsize=(7, 4.6), layout="constrained")
    shown = axes.imshow(np.array(found["values"], dtype=float), vmin=0, vmax=1, cmap="magma", aspect="auto")
    axes.set_xticks(range(len(found["columns"])), found["columns"], rotation=90, fontsize=6)
    axes.set_yticks(range(len(found["rows"])), found["rows"], fontsize=6)
    first, second = (of["model"].upper() for of in study["of"])
    axes.set(ylabel=first, xlabel=second, title="DFT-CCA similarity of layers")
    figure.colorbar(shown)
    return figure


def alike(study: Study) -> Figure:
    """Convergent learning, in Wu's lecture: similarity between seeds by layer, by kind of network."""
    families: dict[str, list[Mapping[str, Any]]] = {}
    for name, part in study["parts"].items():
        families.setdefault(name.rpartition(" ")[0], []).append(part)
    figure, panes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained", sharey=True)
    for pane, method in zip(panes, ("pwcca", "svcca"), strict=True):
        for index, (name, parts) in enumerate(families.items()):
            values = np.array([list(part[f"{method} test"].values()) for part in parts], dtype=float)
            accuracy = np.mean([part["accuracy"] for part in parts])
            label = f"{name.split('_e')[0].replace('_', ' ')}: {accuracy:.1%}"
            pane.plot(values.mean(0), "o-", markersize=3, color=f"C{index}", label=label)
        layers = list(parts[0][f"{method} test"])
        pane.set_xticks(range(len(layers)), layers, rotation=90, fontsize=7)
        pane.set(title=f"{method.upper()} between seeds, test images", ylim=(0, 1))
    panes[0].legend(fontsize=7)
    return figure


def pruned(study: Study) -> Figure:
    """A wide network that loses its weights while it goes on, against narrow ones from the start."""
    figure, axes = plt.subplots(figsize=(6.4, 4), layout="constrained")
    for index, kind in enumerate(("pruned", "wide", "narrow")):
        parts = [part for name, part in study["parts"].items() if name.startswith(kind)]
        weights = np.mean([part["weights"] for part in parts])
        curves = np.array([part["val/accuracy"] for part in parts], dtype=float)
        band(axes, curves, color=f"C{index}", label=f"{kind}: {weights:,.0f} weights")
    axes.set(ylabel="test accuracy", title=title_of(study))
    axes.legend(fontsize=7)
    whole_epochs(axes)
    return figure


def drop(study: Study) -> Figure:
    """Eigenvalue decay, section 3: histograms through training, norms, and the drop of the learning rate."""
    part = next(iter(study["parts"].values()))
    layers, epochs = part["layers"], np.array(part["epochs"])
    rates = np.array([rate[0] if rate else np.nan for rate in part["lr"]], dtype=float)
    figure, panes = plt.subplots(2, len(layers), figsize=(3.6 * len(layers), 6), layout="constrained", squeeze=False)
    for column, (name, found) in zip(panes.T, layers.items(), strict=True):
        for index, (counts, edge) in enumerate(zip(found["counts"], found["edge"], strict=True)):
            if counts is not None:
                edges = np.linspace(0, edge, len(counts) + 1)
                column[0].stairs(np.array(counts) + 0.1, edges, color=shade(index, range(len(epochs))), linewidth=1)
        column[0].set_yscale("log")
        column[0].set(title=f"{name} ({found['size'][-1]} eigenvalues)", xlabel="eigenvalue of HHᵀ")
        for index, key in enumerate(("largest", "frobenius_norm", "stable_rank")):
            values = np.array(found[key], dtype=float)
            column[1].plot(epochs, values / values[0], f"C{index}o-", markersize=3, label=key.replace("_", " "))
        for epoch in epochs[1:][rates[1:] < 0.5 * rates[:-1]]:
            column[1].axvline(epoch, color="0.7", linestyle=":")
        logarithmic(column[1])
        whole_epochs(column[1])
    panes[0, 0].set_ylabel("eigenvalues in a bin (lighter: later)")
    panes[1, 0].set_ylabel("relative to the untrained network")
    panes[1, 0].legend(fontsize=7)
    figure.suptitle(f"{title_of(study)} (dotted: the learning rate drops)", fontsize=10)
    return figure
