"""What can be written to a logger of which nothing but ``log_metrics`` is known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from matplotlib.figure import Figure
from torch import Tensor

Record = Mapping[str, Any]
"""One row of a long-format table: plain numbers and strings by column, None where a value is missing."""


class Sink:
    """A logger as we use it: scalars are passed on, the rest is left out unless a subclass knows how to write it.

    ``step`` is what the logger stores, so it must count as the Trainer's own scalars do. ``draws`` says whether
    the logger shows figures.
    """

    draws: ClassVar[bool] = False

    def __init__(self, logger: Any) -> None:
        self.logger = logger

    def scalars(self, scalars: Mapping[str, float], *, step: int) -> None:
        """Write ``scalars``; missing ones (NaN) are left out, since few loggers have a way to say so."""
        known = {key: value for key, value in scalars.items() if not math.isnan(value)}
        if known:
            self.logger.log_metrics(known, step=step)

    def figure(self, key: str, figure: Figure, *, step: int) -> None:
        """Write ``figure`` as a picture."""

    def table(self, key: str, records: Sequence[Record], *, step: int) -> None:
        """Write one row per record."""

    def text(self, key: str, text: str, *, step: int) -> None:
        """Write ``text`` where a reader of the run finds it."""

    def histogram(self, key: str, values: Tensor, *, step: int) -> None:
        """Write the distribution of ``values``."""

    def chart(self, key: str, records: Sequence[Record], *, x: str, y: str, title: str, step: int) -> None:
        """Write column ``y`` of ``records`` over column ``x`` as a line that the logger draws among other runs'."""

    def summary(self, values: Mapping[str, Any]) -> None:
        """Write ``values`` as what the run as a whole came to, to sort, filter and sweep by."""

    def config(self, name: str, arguments: Mapping[str, Any]) -> None:
        """Write ``arguments`` beside the run's own, under ``name``."""
