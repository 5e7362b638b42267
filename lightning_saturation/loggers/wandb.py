"""Weights & Biases; the only file that imports it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lightning_saturation.drawing.pixels import pixels
from lightning_saturation.loggers import tabular
from lightning_saturation.loggers.adapter import Record, Sink

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_ROWS = 10_000
"""A ``wandb.Table`` silently drops the rows beyond this."""


class WandbSink(Sink):
    """A ``WandbLogger``; its run is used as it is found, never started with options of ours and never finished.

    Everything goes through ``log_metrics``, which adds the logger's prefix and stores ``step`` as
    ``trainer/global_step`` beside the value, the axis on which Lightning's own scalars lie.
    """

    draws = True
    charts = True

    def figure(self, key: str, figure: Figure, *, step: int) -> None:
        """Write the picture as a ``wandb.Image``."""
        import wandb

        if self._writes():
            self.logger.log_metrics({key: wandb.Image(pixels(figure))}, step=step)

    def table(self, key: str, records: Sequence[Record], *, step: int) -> None:
        """Write the records as a ``wandb.Table``, whole or visibly thinned."""
        import wandb

        if not self._writes():
            return
        kept = tabular.fit(records, MOST_ROWS)
        if len(kept) < len(records):
            warnings.warn(
                f"The W&B table {key!r} holds {kept[0]['thinned']}: W&B takes {MOST_ROWS:,} rows.", stacklevel=2
            )
        table = wandb.Table(columns=[*tabular.columns(kept)], data=tabular.rows(kept), allow_mixed_types=True)
        self.logger.log_metrics({key: table}, step=step)

    def text(self, key: str, text: str, *, step: int) -> None:
        """Write the text as an entry of the run's summary."""
        if self._writes():
            prefix = getattr(self.logger, "_prefix", "")
            joined = f"{prefix}{getattr(self.logger, 'LOGGER_JOIN_CHAR', '-')}{key}" if prefix else key
            self.logger.experiment.summary[joined] = text

    def lines(self, key: str, lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, x: str, title: str,
              step: int) -> None:  # fmt: skip
        """Write the lines as a line chart of W&B, whose table is ``{key}_table``."""
        import wandb

        if self._writes():
            xs, ys = [list(line[0]) for line in lines.values()], [list(line[1]) for line in lines.values()]
            chart = wandb.plot.line_series(xs=xs, ys=ys, keys=list(lines), title=title, xname=x)
            self.logger.log_metrics({key: chart}, step=step)

    def _writes(self) -> bool:
        """Whether there is a run to write to: a disabled one takes everything and keeps nothing."""
        return not getattr(self.logger.experiment, "disabled", False)
