"""MLflow, through the client that its logger holds."""

from __future__ import annotations

import re
from collections.abc import Sequence

from matplotlib.figure import Figure

from lightning_saturation.loggers import tabular
from lightning_saturation.loggers.adapter import Record, Sink


class MLflowSink(Sink):
    """An ``MLFlowLogger``: pictures, tables and text as artifacts, one file per key and step."""

    draws = True

    def figure(self, key: str, figure: Figure, *, step: int) -> None:
        """Write the picture as ``{key}-step-{step}.png``."""
        self.logger.experiment.log_figure(self.logger.run_id, figure, _file(key, step, "png"))

    def table(self, key: str, records: Sequence[Record], *, step: int) -> None:
        """Write the records as ``{key}-step-{step}.csv``."""
        self.logger.experiment.log_text(self.logger.run_id, tabular.to_csv(records), _file(key, step, "csv"))

    def text(self, key: str, text: str, *, step: int) -> None:
        """Write the text as ``{key}-step-{step}.txt``."""
        self.logger.experiment.log_text(self.logger.run_id, text, _file(key, step, "txt"))


def _file(key: str, step: int, extension: str) -> str:
    """Return an artifact path: the key's slashes are folders, and anything else that is no plain name becomes ``_``."""
    return f"{re.sub('[^a-zA-Z0-9_/. -]+', '_', key)}-step-{step}.{extension}"
