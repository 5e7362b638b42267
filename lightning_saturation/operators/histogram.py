"""The histogram of an operator's eigenvalues, and the numbers read off it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lightning_saturation.shapes import Float


@dataclass(frozen=True)
class Decay:
    """``eigenvalue ∝ rank^(−exponent)``, fitted over the ranks ``first`` to ``last``; NaN where too few are resolved.

    ``r_squared`` says how straight the line is: a random matrix decays too, but not as a power of the rank.
    """

    exponent: float
    first: int
    last: int
    r_squared: float


@dataclass(frozen=True, eq=False)
class Histogram:
    """How many eigenvalues of HHᵀ (squared singular values of H) lie between consecutive ``edges``.

    ``counts`` (bins,) float64 on the CPU sum to ``size``, the smaller dimension of H; the ``structural_zeros`` that the
    larger of HHᵀ and HᵀH has besides are not among them. ``spikes`` are the largest eigenvalues themselves, largest
    first; they are counted too. ``multiplicity``: H repeats one kernel at so many positions, every eigenvalue occurs
    so often, and ``spikes`` lists it once. ``trace`` is the sum of eigenvalues, from a formula if ``exact_trace``.

    ``method`` is ``"exact"`` or ``"stochastic"``. ``error`` (bins,) is the standard error of the counts and
    ``cdf_error`` the largest one of the cumulative share, both from the spread over ``probes``: zero when exact, NaN
    for a single probe. They do not know the smoothing: ``resolution`` does, the width of the damping kernel in units
    of eigenvalues in the middle of the bulk. ``products`` counts applications of H and Hᵀ in pairs; ``note`` says what
    was cut short.
    """

    counts: Float[Tensor, " bins"] = field(repr=False)
    edges: Float[Tensor, " edges"] = field(repr=False)
    spikes: Float[Tensor, " spikes"] = field(repr=False)
    size: int
    structural_zeros: int
    trace: float
    exact_trace: bool
    method: str
    error: Float[Tensor, " bins"] = field(repr=False)
    cdf_error: float = 0.0
    multiplicity: int = 1
    probes: int = 0
    degree: int = 0
    resolution: float = 0.0
    products: int = 0
    note: str = ""

    @property
    def largest(self) -> float:
        """The largest eigenvalue."""
        return float(self.spikes[0])

    @property
    def spectral_norm(self) -> float:
        """The largest singular value of H."""
        return math.sqrt(max(self.largest, 0.0))

    @property
    def frobenius_norm(self) -> float:
        """The root of the sum of squared singular values of H."""
        return math.sqrt(max(self.trace, 0.0))

    @property
    def stable_rank(self) -> float:
        """Squared Frobenius over squared spectral norm, in [1, size]; 0 for the zero operator."""
        return self.trace / self.largest if self.largest > 0 else 0.0

    @property
    def spike_counts(self) -> Float[Tensor, " bins"]:
        """How many of the ``counts`` are spikes."""
        return binned(self.spikes, self.edges) * self.multiplicity

    @property
    def decay(self) -> Decay:
        """The decay exponent over the largest tenth of the eigenvalues, as far as the histogram resolves them."""
        return decay(self)


def binned(values: Float[Tensor, " values"], edges: Float[Tensor, " edges"]) -> Float[Tensor, " bins"]:
    """Return how many of ``values`` lie between consecutive ``edges``; those beyond the ends are in the bins there."""
    bins = len(edges) - 1
    at = (torch.searchsorted(edges, values, right=True) - 1).clamp(0, bins - 1)
    return torch.bincount(at, minlength=bins).double()


def decay(histogram: Histogram, *, first: int = 1, last: int | None = None) -> Decay:
    """Return the power law fitted to the eigenvalues of ranks ``first`` to ``last``, by least squares in logarithms.

    The eigenvalue of a rank is the spike of that rank, or where the histogram's cumulative count passes it. Ranks are
    spaced evenly in logarithms, so that every decade weighs the same. ``last`` is a tenth of ``size`` by default and
    ends in any case at the last rank above the first bin, below which there is nothing to see.

    Raises a ``ValueError`` unless 1 ≤ ``first`` < ``last`` ≤ ``size``.
    """
    size, times = histogram.size, histogram.multiplicity
    default = max(size // 10, min(size, 10 * times))
    last = default if last is None else last
    if not 1 <= first <= last <= size or (first == last and size > 1):
        raise ValueError(f"Expected 1 <= `first` < `last` <= {size}, got {first} and {last}.")
    resolved = int(float(histogram.counts[1:].sum()))
    last = min(last, resolved)
    if last - first < 4 or histogram.largest <= 0:
        return Decay(math.nan, first, last, math.nan)
    ranks = torch.logspace(math.log10(first), math.log10(last), 64, dtype=torch.float64).round()
    ranks = torch.unique_consecutive(ranks)
    x, y = ranks.log(), eigenvalues_at(histogram, ranks).log()
    x, y = x - x.mean(), y - y.mean()
    slope = (x * y).sum() / x.square().sum()
    left = (y - slope * x).square().sum()
    spread = y.square().sum()
    r_squared = float(1 - left / spread) if spread > 0 else 1.0
    return Decay(float(-slope), first, last, r_squared)


def eigenvalues_at(histogram: Histogram, ranks: Float[Tensor, " ranks"]) -> Float[Tensor, " ranks"]:
    """Return the eigenvalue of each rank (1 is the largest): exact among the spikes, interpolated below them."""
    above = torch.cat([histogram.counts.flip(0).cumsum(0).flip(0), histogram.counts.new_zeros(1)])
    falling, edges = above.flip(0), histogram.edges.flip(0)
    at = torch.searchsorted(falling, ranks - 0.5).clamp(1, len(falling) - 1)
    low, high = falling[at - 1], falling[at]
    share = ((ranks - 0.5 - low) / (high - low).clamp(min=torch.finfo(torch.float64).tiny)).clamp(0, 1)
    values = edges[at - 1] + share * (edges[at] - edges[at - 1])
    spike = ((ranks - 1) / histogram.multiplicity).long()
    exact = histogram.spikes[spike.clamp(max=len(histogram.spikes) - 1)]
    return torch.where(spike < len(histogram.spikes), exact, values)
