"""Reports as matplotlib figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightning_saturation.report import SaturationReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def profile_figure(reports: Sequence[SaturationReport]) -> Figure:
    """Return the saturation of every layer as one line per report, thinned to at most ten reports."""
    raise NotImplementedError
