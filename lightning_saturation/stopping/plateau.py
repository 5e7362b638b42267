"""A series of numbers: how much it will still change, and whether that is little enough to stop."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple

from scipy.special import stdtrit

from lightning_saturation.arguments import check_count, check_share

# Saturation lies in [0, 1]: where nothing else is known, it may still change by 1.
_LARGEST_CHANGE = 1.0
_CONFIDENCE = 0.95  # one-sided
# Schedules that move the learning rate a little every window would otherwise never let a series grow.
_SAME_RATE = 0.05


class Plateau(NamedTuple):
    """The ``drift`` of a set of series and whether they have all ``converged``."""

    drift: float
    converged: bool


@dataclass(frozen=True)
class PlateauRule:
    """When series count as settled: below ``tolerance`` over ``window`` values, in the layers that match ``layers``.

    ``layers`` are names or globs, None for all that are watched by default. Raises ``ValueError`` for a ``tolerance``
    outside (0, 1] and a ``window`` below 3, to which no line can be fitted.
    """

    tolerance: float = 0.01
    window: int = 12
    layers: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        check_share("tolerance", self.tolerance)
        check_count("window", self.window, least=3)

    def watches(self, layer: str, *, default: bool = True) -> bool:
        """Return whether the series of ``layer`` counts; ``default`` is the answer where no layers are named."""
        return default if self.layers is None else any(fnmatchcase(layer, pattern) for pattern in self.layers)


def plateau(
    series: Mapping[str, Sequence[float]], *, horizon: float | None, tolerance: float = 0.01, window: int = 12
) -> Plateau:
    """Return the largest projected change among ``series``, and whether all of them have settled.

    Settled means that each has ``window`` values and none will move by ``tolerance`` or more over the ``horizon``; see
    :func:`projected_change`. No series at all have not settled.

    Raises ``ValueError`` for values that are not finite, and for a ``tolerance``, ``window`` or ``horizon`` out of
    range.

    >>> plateau({"a": [0.5] * 12, "b": [0.25] * 12}, horizon=10)
    Plateau(drift=0.0, converged=True)
    """
    if not tolerance > 0:
        raise ValueError(f"Expected a positive `tolerance`, got {tolerance}.")
    changes = [projected_change(values, horizon=horizon, window=window) for values in series.values()]
    drift = max(changes, default=_LARGEST_CHANGE)
    full = all(len(values) >= window for values in series.values())
    return Plateau(drift, bool(changes) and full and drift < tolerance)


def projected_change(values: Sequence[float], *, horizon: float | None, window: int = 12) -> float:
    """Return a bound on how far ``values`` will still move within ``horizon`` further values, at 95 % confidence.

    A line is fitted to the last ``window`` values; its slope and ``t`` standard errors of it are carried on over the
    ``horizon`` (None, where nobody knows the end of training: over another ``window``). The result is at most 1, the
    widest range of a saturation, and 1 for fewer than three values. A slope alone would stop early on noise: this is an
    equivalence test.

    Raises ``ValueError`` for values that are not finite, a ``window`` below 3, or a negative ``horizon``.

    >>> round(projected_change([0.1, 0.2, 0.3, 0.4], horizon=2), 6)
    0.2
    """
    if window < 3:
        raise ValueError(f"Expected `window` of at least 3 values to fit a line to, got {window}.")
    if horizon is not None and not horizon >= 0:
        raise ValueError(f"Expected `horizon` of at least 0 or None, got {horizon}.")
    values = list(values)[-window:]
    for value in values:
        if not math.isfinite(value):  # the largest of several changes would hide a NaN among them
            raise ValueError(f"Expected finite `values`, got {value} among them.")
    n = len(values)
    if n < 3:
        return _LARGEST_CHANGE
    middle, mean = (n - 1) / 2, math.fsum(values) / n
    spread = math.fsum((i - middle) ** 2 for i in range(n))
    slope = math.fsum((i - middle) * (v - mean) for i, v in enumerate(values)) / spread
    residual = math.fsum((v - mean - slope * (i - middle)) ** 2 for i, v in enumerate(values))
    error = math.sqrt(residual / (n - 2) / spread)
    change = (abs(slope) + float(stdtrit(n - 2, _CONFIDENCE)) * error) * (window if horizon is None else horizon)
    return min(change, _LARGEST_CHANGE)


def rates_changed(before: Sequence[float], after: Sequence[float]) -> bool:
    """Return whether any learning rate changed by more than 5 %, or their number."""
    if len(before) != len(after):
        return True
    return any(abs(a - b) > _SAME_RATE * max(abs(a), abs(b)) for a, b in zip(before, after, strict=True))
