"""TensorBoard, and whatever writes as its ``SummaryWriter`` does."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from lightning_saturation.drawing.canvas import pixels
from lightning_saturation.loggers import tabular
from lightning_saturation.loggers.adapter import Record, Sink

MOST_ROWS = 1_000
"""A longer table makes the text tab unusable."""


class TensorBoardSink(Sink):
    """A ``TensorBoardLogger``: pictures, histograms and text."""

    draws = True

    def figure(self, key: str, figure: Figure, *, step: int) -> None:
        """Write the picture as an image."""
        # Not add_figure, which imports pyplot.
        self.logger.experiment.add_image(key, pixels(figure), step, dataformats="HWC")

    def table(self, key: str, records: Sequence[Record], *, step: int) -> None:
        """Write the records as a Markdown table."""
        kept = tabular.fit(records, MOST_ROWS)
        head = tabular.columns(kept)
        cells = [[_cell(value) for value in row] for row in tabular.rows(kept)]
        lines = ["| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *cells]]
        self.logger.experiment.add_text(key, "\n".join(lines), step)

    def text(self, key: str, text: str, *, step: int) -> None:
        """Write the text as preformatted text."""
        # TensorBoard reads Markdown: an indented block keeps line ends and columns.
        self.logger.experiment.add_text(key, "\n".join(f"    {line}" for line in text.splitlines()), step)

    def histogram(self, key: str, values: Tensor, *, step: int) -> None:
        """Write the values as a histogram."""
        self.logger.experiment.add_histogram(key, values, step)


def _cell(value: Any) -> str:
    """Return ``value`` as text that neither ends a cell nor is taken for HTML."""
    if value is None:
        return ""
    text = f"{value:.4g}" if isinstance(value, float) else html.escape(str(value), quote=False)
    return " ".join(text.replace("|", "\\|").split())
