"""Weights & Biases; the only file that imports it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from lightning_saturation.drawing.canvas import pixels
from lightning_saturation.loggers import tabular
from lightning_saturation.loggers.adapter import Record, Sink

MOST_ROWS = 10_000
"""A ``wandb.Table`` silently drops the rows beyond this."""


class WandbSink(Sink):
    """A ``WandbLogger``; its run is used as it is found, never started with options of ours and never finished.

    Everything goes through ``log_metrics``, which adds the logger's prefix and stores ``step`` as
    ``trainer/global_step`` beside the value, the axis on which Lightning's own scalars lie.
    """

    draws = True

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
        self.summary({key: text})

    def chart(self, key: str, records: Sequence[Record], *, x: str, y: str, title: str, step: int) -> None:
        """Write a line chart of W&B, whose table is ``{key}_table``; its page draws one line for each run."""
        import wandb

        if self._writes():
            table = wandb.Table(columns=[*tabular.columns(records)], data=tabular.rows(records))
            self.logger.log_metrics({key: wandb.plot.line(table, x, y, title=title)}, step=step)

    def summary(self, values: Mapping[str, Any]) -> None:
        """Write the values into the run's summary; they make no panels."""
        if self._writes() and values:
            prefix = getattr(self.logger, "_prefix", "")
            before = f"{prefix}{getattr(self.logger, 'LOGGER_JOIN_CHAR', '-')}" if prefix else ""
            self.logger.experiment.summary.update({f"{before}{key}": value for key, value in values.items()})

    def config(self, name: str, arguments: Mapping[str, Any]) -> None:
        """Write the arguments into the run's configuration; those of a resumed run take the place of earlier ones."""
        if self._writes():
            self.logger.experiment.config.update({name: dict(arguments)}, allow_val_change=True)

    def _writes(self) -> bool:
        """Whether there is a run to write to: a disabled one takes everything and keeps nothing."""
        return not getattr(self.logger.experiment, "disabled", False)
