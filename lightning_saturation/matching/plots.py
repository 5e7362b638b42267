"""Units of two networks side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from torch import Tensor

from lightning_saturation.drawing import canvas

if TYPE_CHECKING:
    from lightning_saturation.matching.patches import UnitPatches
    from lightning_saturation.matching.report import ConvergentLearning, LayerMatch


def match_figure(match: LayerMatch, *, title: str = "") -> Figure:
    """Return the unit correlations of one layer of two networks, as they are and in matched order.

    Top: within the first network, within the second, between them; bottom: within each in the order of the pairs,
    between them in that order (pairs on the diagonal), and the correlations of the pairs beside those of each unit's
    best partner. Colours run from −1 to 1.

    Source: Li et al., *Convergent learning*, 2016, figures 1 to 3.
    """
    first, second = match.order
    figure = canvas.new_figure(12.5, 6.6)
    axes = figure.subplots(2, 4, width_ratios=(1, 1, 1, 1.15))
    natural = (match.within[0], match.within[1], match.between)
    matched = (
        match.within[0][first][:, first],
        match.within[1][second][:, second],
        match.between[first][:, second],
    )
    names = ("within network 1", "within network 2", "between 1 and 2")
    for row, order, matrices in zip(axes, ("natural order", "matched order"), (natural, matched), strict=True):
        for pane, name, matrix in zip(row, names, matrices, strict=False):
            image = _draw(pane, matrix, f"{name}, {order}")
    figure.colorbar(image, ax=list(axes[:, 2]), label="correlation of two units", aspect=40)
    _pairs(axes[1, 3], match)
    _partners(axes[0, 3], match)
    if title:
        figure.suptitle(title)
    return figure


def _draw(axes: Axes, matrix: Tensor, title: str) -> AxesImage:
    image = axes.imshow(matrix.numpy(), vmin=-1, vmax=1, cmap="RdBu_r", aspect="auto", interpolation="nearest")
    axes.set_title(title, fontsize=9)
    axes.tick_params(labelsize=canvas.LABEL_SIZE)
    return image


def _pairs(axes: Axes, match: LayerMatch) -> None:
    first, second = match.order
    axes.plot(match.between[first, second].numpy(), color="C0", label="one-to-one")
    axes.plot(match.semi.y_correlation[first].numpy(), "--", color="C1", label="best partner of 1 in 2")
    axes.plot(match.semi.x_correlation[second].numpy(), ":", color="C2", label="best partner of 2 in 1")
    axes.set_ylim(min(0.0, float(match.between[first, second].min())) - 0.02, 1.02)
    axes.set_xlabel("pair, best first")
    axes.set_ylabel("correlation")
    axes.set_title("correlation of the pairs", fontsize=9)
    axes.legend(fontsize=canvas.LABEL_SIZE)


def _partners(axes: Axes, match: LayerMatch) -> None:
    """How often a unit is somebody's best partner: 1 for all where units correspond one to one."""
    counts = match.semi.y_partner.bincount(minlength=match.between.shape[1])
    values, times = np.unique(counts.numpy(), return_counts=True)
    axes.bar(values, times, color="C1")
    axes.set_xticks(values.tolist())
    axes.set_xlabel("units of 1 that share one best partner")
    axes.set_ylabel("units of 2")
    axes.set_title("semi-matching: shared partners", fontsize=9)


def loss_figure(learning: ConvergentLearning, *, most: int = 12) -> Figure:
    """Return the loss of sparse mappings over decay, a line per layer; 0.5 is what predicting nothing costs.

    With more than ``most`` layers, ``most`` of them are drawn, evenly spread over the depth.

    Source: Li et al., *Convergent learning*, 2016, table 1.
    """
    names = canvas.thin(list(learning.layers), most)
    figure = canvas.new_figure(6.4 + canvas.name_room(names), 4.2)
    axes = figure.subplots()
    decays: list[float] = []
    for number, (name, colour) in enumerate(zip(names, canvas.colours(len(names)), strict=True)):
        match = learning.layers[name]
        decays = match.mapping.decay.tolist()
        style = canvas.LINE_STYLES[number % len(canvas.LINE_STYLES)]
        axes.plot(range(len(decays)), match.mapping.loss.tolist(), style, marker="o", color=colour, label=name)
    axes.axhline(0.5, color="0.6", linewidth=1)
    axes.annotate("predicting nothing", (0, 0.5), (2, -9), textcoords="offset points", fontsize=canvas.LABEL_SIZE)
    axes.set_xticks(range(len(decays)), [f"{decay:g}" for decay in decays])
    axes.set_xlabel("L1 penalty (decay)")
    axes.set_ylabel("half the mean squared error per unit")
    axes.set_ylim(0, 0.53)
    shown = canvas.cut(names, learning.layers)
    axes.set_title(f"Predicting network 2 from few units of network 1{shown}", fontsize=10)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=canvas.LABEL_SIZE, frameon=False, title="layer")
    return figure


def patch_figure(patches: UnitPatches, other: UnitPatches | None = None) -> Figure:
    """Return the patches of each unit in a row, and those of the unit of ``other`` that it goes with beside them.

    Each patch has grey or colours of its own range, as weak and strong answers are to be seen alike.

    Source: Li et al., *Convergent learning*, 2016, figures 2 and 5.
    """
    sides = [patches] if other is None else [patches, other]
    width = max(len(row) for side in sides for row in side.patches)
    figure = canvas.new_figure(0.62 * (width * len(sides) + 2), 0.72 * len(patches.units) + 0.5)
    panes = figure.subfigures(1, len(sides), squeeze=False)[0]
    for pane, side, number in zip(panes, sides, (1, 2), strict=False):
        axes = pane.subplots(len(side.units), width, squeeze=False)
        pane.suptitle(side.layer if other is None else f"{side.layer}, network {number}", fontsize=10)
        for row, unit, own in zip(axes, side.units, side.patches, strict=True):
            for cell in row:
                cell.set_axis_off()
            row[0].text(-0.15, 0.5, str(unit), ha="right", va="center", fontsize=8, transform=row[0].transAxes)
            for cell, patch in zip(row, own, strict=False):
                low, high = patch.image.aminmax()
                image = (patch.image - low) / (high - low).clamp(min=1e-12)
                shown = image.movedim(0, -1) if len(image) == 3 else image.mean(0)
                cell.imshow(shown.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    return figure
