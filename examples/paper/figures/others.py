"""Auto-encoders (Shenk et al., figures 2 and 3), true labels and random ones, layers as operators."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from paper.figures.records import Record, grouped, usual
from paper.figures.style import NAMES, band, fraction, logarithmic, shade, whole_epochs


def autoencoder(records: list[Record]) -> Figure | None:
    """Figures 2 and 3: dimension and saturation of bottlenecks of several widths, beside the validation loss."""
    groups = grouped(usual(records, model="autoencoder"), lambda settings: settings.width)
    if not groups:
        return None
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    for width, members in groups.items():
        color = shade(width, groups)
        saturation = np.array([r.numbers["train"]["continuous_saturation"]["network.bottleneck"] for r in members])
        band(left, saturation * width, color=color, label=f"{width:g} units")
        band(middle, saturation, color=color)
        band(right, np.array([record.over_epochs("val/loss") for record in members]), color=color)
    left.set_title("directions that hold 99 %, bottleneck")
    logarithmic(left)
    middle.set(title="saturation of the bottleneck", ylim=(0, 1.02))
    right.set_title("loss on test images")
    logarithmic(right)
    left.legend(fontsize=7)
    for pane in (left, middle, right):
        whole_epochs(pane)
    return figure


def labels(records: list[Record]) -> Figure | None:
    """Generalising against memorising: the same images, true labels and labels drawn at random."""
    runs = [r for r in records if r.settings.limit == 10_000 and r.settings.epochs == 60]
    groups = grouped(runs, lambda settings: (settings.width, settings.data))
    widths = sorted({width for width, _ in groups})
    if len({data for _, data in groups}) < 2:
        return None
    figure, panes = plt.subplots(len(widths), 3, figsize=(11.5, 3.2 * len(widths)), layout="constrained", squeeze=False)
    for row, width in zip(panes, widths, strict=True):
        for data, color in (("photos", "C0"), ("random-labels", "C3")):
            members = groups.get((width, data), [])
            if not members:
                continue
            name = "true labels" if data == "photos" else NAMES[data]
            band(row[0], np.array([r.over_epochs("train/accuracy") for r in members]), color=color, label=name)
            averages = [record.profile(statistic="continuous_saturation").mean(1) for record in members]
            band(row[1], np.array(averages), color=color)
            row[2].plot(np.array([r.profile()[-1] for r in members]).mean(0), "o-", color=color, markersize=3)
        row[0].set(title=f"VGG11, width {fraction(width)}: training accuracy")
        row[1].set(title="average saturation")
        row[2].set(title="saturation by layer, last epoch", xlabel="layers, in their order", ylim=(0, 1))
        row[0].legend(fontsize=7)
        whole_epochs(row[0])
        whole_epochs(row[1])
    return figure


def operators(records: list[Record]) -> Figure | None:
    """Eigenvalues of layers as operators before and after training, of the widest convolutional network."""
    runs = [r for r in usual(records, data="photos") if r.settings.model.startswith("vgg")]
    runs = [r for r in runs if r.numbers["measured"].get("spectrum")]
    if not runs:
        return None
    record = max(runs, key=lambda run: (run.settings.width, run.settings.model, -run.settings.seed))
    found = record.numbers["measured"]["spectrum"]
    names = [n for n in found["trained"] if all("counts" in found[w].get(n, {}) for w in ("trained", "untrained"))]
    figure, panes = plt.subplots(1, len(names), figsize=(3.4 * len(names), 3.3), layout="constrained", squeeze=False)
    for pane, name in zip(panes[0], names, strict=True):
        for weights, color in (("untrained", "0.6"), ("trained", "C0")):
            layer = found[weights][name]
            edges = np.linspace(*layer["edges"], len(layer["counts"]) + 1)
            told = f"{weights}: largest {layer['largest']:.3g}, stable rank {layer['stable_rank']:.3g}"
            pane.stairs(np.array(layer["counts"]), edges, color=color, fill=weights == "untrained", label=told)
        pane.set(title=f"{name} ({layer['size']} eigenvalues)", xlabel="eigenvalue of HHᵀ", yscale="symlog")
        pane.legend(fontsize=6)
    panes[0, 0].set_ylabel("eigenvalues in a bin")
    settings = record.settings
    figure.suptitle(f"{settings.model.upper()}, width {fraction(settings.width)}, test accuracy {record.accuracy:.1%}")
    return figure
