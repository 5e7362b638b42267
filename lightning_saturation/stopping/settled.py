"""When a profile has settled: its mean change over a few windows stays small."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import NamedTuple

from lightning_saturation.arguments import check_count, check_share

ABRUPT = 0.3
"""Share of a learning rate by which it must fall within one window for another regime to begin."""

Rates = float | Sequence[float]
"""A learning rate, or one for each parameter group."""


class Settling(NamedTuple):
    """What a window says of a profile, and the ``learning_rates`` that it had, by parameter group.

    ``change`` is the mean one, NaN where unknown; ``calm`` counts the windows in a row, this one included, in which it
    was small; ``converged`` says that they are enough.
    """

    change: float
    calm: int
    converged: bool
    learning_rates: tuple[float, ...] = ()


@dataclass(frozen=True)
class SettledRule:
    """When a profile counts as settled; see :func:`settled`. ``layers`` are names or globs, None for the default ones.

    Raises ``ValueError`` for a ``tolerance`` outside (0, 1], and for a ``window`` or ``patience`` below 1.
    """

    window: int = 5
    tolerance: float = 0.01
    patience: int = 3
    layers: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        check_count("window", self.window)
        check_share("tolerance", self.tolerance)
        check_count("patience", self.patience)

    def watches(self, layer: str, *, default: bool = True) -> bool:
        """Return whether the series of ``layer`` counts; ``default`` is the answer where no layers are named."""
        return default if self.layers is None else any(fnmatchcase(layer, pattern) for pattern in self.layers)

    def judge(self, changes: Sequence[float], learning_rates: Sequence[float] = ()) -> Settling:
        """Return what the last of ``changes`` says together with those before it; without any nothing is known."""
        calm = next((i for i, change in enumerate(reversed(changes)) if not change < self.tolerance), len(changes))
        return Settling(changes[-1] if changes else math.nan, calm, calm >= self.patience, tuple(learning_rates))


def settled(
    series: Mapping[str, Sequence[float]],
    *,
    window: int = 5,
    tolerance: float = 0.01,
    patience: int = 3,
    learning_rates: Sequence[Rates] | None = None,
) -> int | None:
    """Return the index of the window at which the profile has settled, None where it does not.

    Settled means that the mean over layers of ``|value now − value window windows ago|`` is below ``tolerance`` for
    ``patience`` windows in a row. An abrupt drop of a learning rate, by more than 30 % within one window, begins a new
    regime: windows are compared within it only. While such a drop lies ahead, nothing has settled for good. A smooth
    schedule, such as a cosine, changes nothing.

    Args:
        series: by layer one value for each window, such as the continuous saturation; NaN where it is missing.
        window: over how many windows a change is taken, at least 1.
        tolerance: mean change below which the profile is calm, in (0, 1].
        patience: calm windows in a row, at least 1.
        learning_rates: one for each window, or one for each window and parameter group; they may go on beyond the
            series as far as the plan is known. None for a constant one.

    Raises:
        ValueError: for series of different lengths, fewer ``learning_rates`` than windows, or arguments out of range.

    The rule and its defaults were chosen on recorded runs: ``docs/stopping.md``.

    >>> settled({"a": [0.1, 0.3, 0.5, 0.5, 0.5, 0.5], "b": [0.2] * 6}, window=2, patience=2)
    5
    """
    rule = SettledRule(window, tolerance, patience)
    changes = profile_changes(series, window=window, learning_rates=learning_rates)
    for index in range(len(changes)):
        ahead = () if learning_rates is None else learning_rates[index:]
        if rule.judge(changes[: index + 1]).converged and not drop_ahead(ahead):
            return index
    return None


def profile_changes(
    series: Mapping[str, Sequence[float]], *, window: int, learning_rates: Sequence[Rates] | None = None
) -> list[float]:
    """Return the mean change of ``series`` over ``window`` windows, by window.

    NaN where a regime has no more than ``window`` windows yet, and where no layer is known at both ends.

    >>> profile_changes({"a": [0.0, 0.25, 0.75]}, window=1)
    [nan, 0.25, 0.5]
    """
    if not isinstance(series, Mapping):
        raise TypeError(f"Expected `series` to map layers to their values by window, got {type(series).__name__}.")
    lengths = {len(values) for values in series.values()}
    if len(lengths) > 1:
        raise ValueError(f"Expected `series` of one length, got lengths {sorted(lengths)}.")
    count = lengths.pop() if lengths else 0
    if learning_rates is not None and len(learning_rates) < count:
        raise ValueError(f"Expected `learning_rates` for all {count} windows, got {len(learning_rates)}.")
    begins = [0] * count if learning_rates is None else regime_begins(learning_rates[:count], window=window)
    changes = []
    for index, begin in enumerate(begins):
        known_before = index - window >= begin
        moved = [abs(values[index] - values[index - window]) for values in series.values()] if known_before else []
        known = [each for each in moved if not math.isnan(each)]
        changes.append(math.fsum(known) / len(known) if known else math.nan)
    return changes


def regime_begins(learning_rates: Sequence[Rates], *, window: int) -> list[int]:
    """Return for each window the first one of its regime: that of the last drop by 30 % of the rate ``window`` before.

    >>> regime_begins([1.0, 1.0, 0.1, 0.1], window=5)
    [0, 0, 2, 2]
    """
    begins = [0] * min(1, len(learning_rates))
    for index in range(1, len(learning_rates)):
        reference = learning_rates[max(begins[-1], index - window)]
        fell = is_drop(learning_rates[index - 1], learning_rates[index], reference)
        begins.append(index if fell else begins[-1])
    return begins


def drop_ahead(rates: Iterable[Rates]) -> bool:
    """Return whether any of ``rates``, the first of them today's, falls within one window by 30 % of today's."""
    today: Rates | None = None
    for before, after in pairwise(rates):
        today = before if today is None else today
        if is_drop(before, after, today):
            return True
    return False


def is_drop(before: Rates, after: Rates, reference: Rates) -> bool:
    """Return whether a rate falls by more than 30 % of its ``reference``, or whether their number changes."""
    befores, afters, references = (_groups(rates) for rates in (before, after, reference))
    if not len(befores) == len(afters) == len(references):
        return True
    return any(b - a > ABRUPT * r for b, a, r in zip(befores, afters, references, strict=True))


def _groups(rates: Rates) -> Sequence[float]:
    return rates if isinstance(rates, Sequence) else (rates,)
