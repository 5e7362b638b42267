"""Means and rank correlations with bootstrap intervals; runs that differ by their seed only are drawn together."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

DRAWS = 1000
LEVEL = 0.95


class Estimate(NamedTuple):
    """A number, its 95 % interval, how many runs and how many groups of them it rests on."""

    value: float
    low: float
    high: float
    runs: int
    groups: int

    def __str__(self) -> str:
        if np.isnan(self.value):
            return "–"
        value, low, high = (f"{round(number, 6):+.3g}" for number in self[:3])
        return f"{value} ({'no interval' if np.isnan(self.low) else f'{low} … {high}'})"


NOTHING = Estimate(np.nan, np.nan, np.nan, 0, 0)


def mean(values: Sequence[float], groups: Sequence[Hashable]) -> Estimate:
    """Return the mean of ``values`` over groups, each of which counts once."""
    return estimate([[value] for value in values], groups, lambda rows: float(rows[:, 0].mean()))


def rank_correlation(x: Sequence[float], y: Sequence[float], groups: Sequence[Hashable]) -> Estimate:
    """Return Spearman's rank correlation over runs; without an interval for fewer than five groups."""
    return estimate(list(zip(x, y, strict=True)), groups, lambda rows: spearman(rows[:, 0], rows[:, 1]))


def within(x: Sequence[float], y: Sequence[float], strata: Sequence[Hashable], groups: Sequence[Hashable]) -> Estimate:
    """Return the rank correlation within ``strata``, such as networks of one depth: ranks are taken in each of them."""
    kinds = {kind: number for number, kind in enumerate(dict.fromkeys(strata))}
    rows = [(a, b, kinds[kind]) for a, b, kind in zip(x, y, strata, strict=True)]
    return estimate(rows, groups, _within)


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Return Spearman's rank correlation, NaN where one side does not vary."""
    return _pearson(rankdata(x), rankdata(y)) if len(x) > 2 else float("nan")


def estimate(
    rows: Sequence[Sequence[float]], groups: Sequence[Hashable], statistic: Callable[[np.ndarray], float]
) -> Estimate:
    """Return ``statistic`` of all rows, with the percentile interval of draws of whole groups."""
    if not rows:
        return NOTHING
    table = np.array(rows, dtype=float)
    members = [np.array([i for i, g in enumerate(groups) if g == group]) for group in dict.fromkeys(groups)]
    value = statistic(table)
    if len(members) < 5:
        return Estimate(value, np.nan, np.nan, len(rows), len(members))
    generator = np.random.default_rng(0)
    draws = []
    for _ in range(DRAWS):
        chosen = generator.integers(len(members), size=len(members))
        drawn = statistic(table[np.concatenate([members[i] for i in chosen])])
        if not np.isnan(drawn):
            draws.append(drawn)
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(draws, [tail, 100 - tail]) if draws else (np.nan, np.nan)
    return Estimate(value, float(low), float(high), len(rows), len(members))


def _within(rows: np.ndarray) -> float:
    x, y = [], []
    for kind in np.unique(rows[:, 2]):
        part = rows[rows[:, 2] == kind]
        if len(part) > 2:
            x += list(_centred(rankdata(part[:, 0])))
            y += list(_centred(rankdata(part[:, 1])))
    return _pearson(np.array(x), np.array(y)) if x else float("nan")


def _centred(ranks: np.ndarray) -> np.ndarray:
    return (ranks - ranks.mean()) / len(ranks)


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x - x.mean(), y - y.mean()
    size = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / size if size > 0 else float("nan")
