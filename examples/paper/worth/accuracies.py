"""What the networks of the grid reach, by depth and width."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from paper.figures.records import Record, usual
from paper.plan import DEPTHS, WIDTHS
from paper.settings import CAT_DOG, PHOTOS
from paper.worth.tables import table


def accuracies(records: Sequence[Record]) -> str:
    """Return a table of test accuracies, means of the last three epochs and of seeds, with the number of seeds."""
    rows = []
    for data in (PHOTOS, CAT_DOG):
        runs = usual(records, data=data)
        for depth in DEPTHS:
            cells = []
            for width in WIDTHS:
                chosen = [run for run in runs if (run.settings.model, run.settings.width) == (f"vgg{depth}", width)]
                reached = [float(np.mean(run.over_epochs("val/accuracy")[-3:])) for run in chosen]
                cells.append(f"{np.mean(reached):.3f} ({len(reached)})" if reached else "–")
            if any(cell != "–" for cell in cells):
                rows.append((data, f"VGG{depth}", *cells))
    if not rows:
        return "No network of the grid is finished."
    return table(rows, ("problem", "network", *(f"width 1/{round(1 / width)}" for width in WIDTHS)))
