"""A number of the user's own over a training, to draw beside ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class MetricCurve(NamedTuple):
    """A metric called ``name`` at the end of each of ``epochs``, counted from 0, with the optimizer steps by then."""

    name: str
    epochs: Sequence[int]
    steps: Sequence[int]
    values: Sequence[float]
