"""Where the eigenvalues of an operator lie: spikes exactly, the bulk by damped Chebyshev moments."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lightning_saturation.arguments import check_choice, check_count
from lightning_saturation.operators.histogram import Histogram, binned
from lightning_saturation.operators.krylov import chebyshev_moments, cumulative_counts, largest_eigenpairs
from lightning_saturation.operators.linear_map import Gram, LinearMap, OutOfTime, eigen_seconds

EXACT_SIZE = 4096
"""Up to this size the exact path is cheaper than probes enough for an equally good histogram."""

_FEWEST_MOMENTS = 32
_MASS = 200_000  # probes × size at which the noise of 250 bins stays below 0.05 of all eigenvalues


def eigenvalue_histogram(
    operator: LinearMap,
    *,
    method: str = "auto",
    bins: int = 250,
    spikes: int = 32,
    probes: int | None = None,
    degree: int = 400,
    seed: int = 0,
    block: int = 16,
    seconds: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> Histogram:
    """Return how the eigenvalues of HHᵀ lie over ``bins`` equal bins from 0 to the largest one.

    ``method="exact"`` forms the smaller of HHᵀ and HᵀH, for each group of a grouped convolution by itself, and splits a
    circularly padded one into frequencies; ``"stochastic"`` finds ``spikes`` largest eigenvalues by
    ARPACK, projects them out, rescales what is left to [−1, 1] and estimates its density from Jackson-damped Chebyshev
    moments up to ``degree``, averaged over ``probes`` Rademacher vectors; ``"auto"`` takes the exact path up to the
    cost of one matrix of size 4096. ``probes`` defaults to as many as bring the noise to a few percent of the
    eigenvalues, at least 8. Cost of the stochastic path: ``probes * degree / 2`` products besides ARPACK's.

    Probes come from ``seed`` alone, no global generator is touched, and ``block``, the number of vectors to which the
    operator is applied at once, does not change the result. After ``seconds`` the degree reached so far is used and
    ``note`` says so; a ``TimeoutError`` says what was done where that is too little. ``progress`` is called with the
    number of products made since its last call.

    Raises a ``ValueError`` for options out of range and for an operator that returns NaN or infinity.

    Source: *Evolution of Eigenvalue Decay in Deep Networks*, section 2, with damping, deflation and halved products.
    """
    check_options(
        bins=bins, spikes=spikes, probes=probes, degree=degree, seed=seed, block=block, method=method, seconds=seconds
    )
    outputs, inputs = operator.shape
    # A kernel repeated at many positions: its own spectrum is the spectrum, each eigenvalue that many times.
    kernel, times = operator.factor() if hasattr(operator, "factor") else (operator, 1)
    deadline = None if seconds is None else time.monotonic() + seconds
    gram = Gram(kernel, block=block, deadline=deadline, progress=progress)
    blocks = kernel.blocks() if hasattr(kernel, "blocks") else [kernel]
    parts = [gram] if len(blocks) == 1 else [Gram(b, block=block, deadline=deadline, progress=progress) for b in blocks]
    by_frequency = kernel.frequencies() if hasattr(kernel, "frequencies") else None
    work = len(parts) * parts[0].size ** 3 if by_frequency is None else by_frequency[0]
    slow = False
    if method == "auto":
        short = work <= EXACT_SIZE**3
        if short and deadline is not None:
            needed = len(parts) * parts[0].exact_seconds() if by_frequency is None else eigen_seconds(work)
            short, slow = needed < deadline - time.monotonic(), needed >= deadline - time.monotonic()
        method = "exact" if short or gram.size <= 2 * spikes else "stochastic"
        slow = slow and method == "stochastic"
    if method == "exact":
        dense = (torch.linalg.eigvalsh(part.dense()).clamp(min=0) for part in parts)
        values = torch.cat(list(dense)) if by_frequency is None else by_frequency[1]()
        found = _exact(values.sort(descending=True).values, bins, spikes)
    else:
        if gram.size <= 2 * spikes:
            raise ValueError(f"Expected `spikes` below half the size {gram.size} of the operator, got {spikes}.")
        found = _stochastic(gram, bins, spikes, probes or max(8, math.ceil(_MASS / gram.size)), degree, seed)
    if slow:
        found["note"] = "; ".join(filter(None, ["the exact path would outlast the time", found["note"]]))
    trace = operator.trace()
    estimate = found.pop("estimate") * times
    found["counts"], found["error"] = found["counts"] * times, found["error"] * times
    return Histogram(
        **found,
        size=min(outputs, inputs),
        structural_zeros=abs(outputs - inputs),
        trace=estimate if trace is None else trace,
        exact_trace=trace is not None,
        multiplicity=times,
        products=gram.products + sum(part.products for part in parts if part is not gram),
    )


def _exact(values: Tensor, bins: int, spikes: int) -> dict[str, Any]:
    edges = _edges(values[0], bins)
    counts = binned(values, edges)
    return {
        "counts": counts,
        "edges": edges,
        "spikes": values[: max(spikes, 1)].clone(),
        "error": torch.zeros_like(counts),
        "method": "exact",
        "estimate": float(values.sum()),
    }


def _stochastic(gram: Gram, bins: int, spikes: int, probes: int, degree: int, seed: int) -> dict[str, Any]:
    try:
        values, basis = largest_eigenpairs(gram, gram.probe(seed, -1), max(spikes, 1))
    except OutOfTime as stop:
        raise TimeoutError(f"Out of time during ARPACK, after {gram.products} products.") from stop
    if len(values) == 0:
        raise ValueError("Expected an operator whose largest eigenvalue ARPACK finds; it gave up on all of them.")
    values = values.clamp(min=0)
    edges, left = _edges(values[0], bins), gram.size - len(values)
    starts = torch.stack([gram.probe(seed, index) for index in range(probes)])
    starts = gram.without(starts, basis)
    starts *= (left / starts.square().sum(1, keepdim=True)).sqrt()
    found = None
    # A copy of a multiple eigenvalue that ARPACK missed lies above the last spike; moments then outgrow the zeroth.
    for scale in (float(values[-1]) * 1.001, float(values[0]) * 1.001):
        found = _moments(gram, starts, basis, scale, degree)
        if found is not None or scale <= 0:
            break
    if found is None:
        raise ValueError("Expected a symmetric positive operator; its Chebyshev moments grow beyond its largest value.")
    moments, note = found
    points = 2 * edges / scale - 1 if scale > 0 else torch.ones_like(edges)
    below = cumulative_counts(moments, points)
    below[:, 0], below[:, -1] = 0, left
    spread = (lambda x: x.std(0) / math.sqrt(probes)) if probes > 1 else (lambda x: torch.full_like(x[0], math.nan))
    bulk = below.diff(dim=1).clamp(min=0)
    return {
        "counts": bulk.mean(0) + binned(values, edges),
        "edges": edges,
        "spikes": values,
        "error": spread(bulk),
        "cdf_error": float(spread(below).max()) / gram.size,
        "method": "stochastic",
        "probes": probes,
        "degree": moments.shape[1] - 1,
        "resolution": math.pi / moments.shape[1] * scale / 2,
        "note": note,
        "estimate": float(values.sum() + (moments[:, 1].mean() + left) * scale / 2),
    }


def _moments(gram: Gram, starts: Tensor, basis: Tensor, scale: float, degree: int) -> tuple[Tensor, str] | None:
    """Return the moments (probes, degree + 1) and a note, or None where an eigenvalue lies above ``scale``."""
    if scale <= 0:
        return (starts.square().sum(1, keepdim=True).cpu().double() * torch.tensor([1.0, -1.0])), ""

    def product(x: Tensor) -> Tensor:
        return gram.without(gram(x).mul_(2 / scale).sub_(x), basis)

    columns, note = [], ""
    limit = starts.shape[1] * 1.001
    try:
        for pair in chebyshev_moments(product, starts, degree):
            if not bool(torch.isfinite(pair).all()):
                raise ValueError("Expected an operator with finite products, got NaN or infinity.")
            if float(pair.abs().max()) > limit:
                return None
            columns.append(pair)
    except OutOfTime as stop:
        reached = 2 * len(columns) - 1
        if reached < min(_FEWEST_MOMENTS, degree):
            raise TimeoutError(f"Out of time after the spikes and {max(reached, 0)} of {degree} moments.") from stop
        note = f"out of time: degree {reached} of {degree}"
    return torch.cat(columns, dim=1)[:, : degree + 1], note


def _edges(largest: Tensor, bins: int) -> Tensor:
    top = float(largest)
    return torch.linspace(0, top if top > 0 else 1.0, bins + 1, dtype=torch.float64)


def check_options(*, method: Any = "auto", seconds: Any = None, **counts: Any) -> dict[str, int | None]:
    """Return the ``counts`` among the options of :func:`eigenvalue_histogram`.

    Raises a ``ValueError`` or ``TypeError`` for an option that is out of range for any operator.
    """
    least = {"spikes": 0, "degree": 2, "seed": 0}
    checked = {
        name: check_count(name, value, least=least.get(name, 1), optional=name == "probes")
        for name, value in counts.items()
    }
    check_choice("method", method, ("auto", "exact", "stochastic"))
    if isinstance(seconds, bool) or not isinstance(seconds, int | float | None):
        raise TypeError(f"Expected `seconds` to be a number or None, got {seconds!r}.")
    if seconds is not None and not seconds > 0:
        raise ValueError(f"Expected `seconds` > 0 or None, got {seconds}.")
    return checked
