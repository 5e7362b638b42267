"""The two nearest neighbours of points: as fast as a matrix product, and certified."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_saturation.shapes import Float, Int

_MARGINS = (2, 6)  # how many candidates are measured exactly: few suffice nearly always, the rest settles near ties
_BLOCK = 2**24  # bounds held at a time: 64 MiB in float32
_GROUP = 16  # bounds of which first the smallest is taken: one pass over all of them, and a choice among few
_PASS = 2**19  # numbers touched at a time where nothing but the memory bus is busy: 4 MiB in float64
_TOLERANCE = 1e-9  # relative; only ties that float64 cannot tell apart are this close


@torch.no_grad()
def two_nearest(
    queries: Float[Tensor, "queries features"], points: Float[Tensor, "points features"] | None = None
) -> Float[Tensor, "queries 2"]:
    """Return the distances from every query to the two nearest ``points``, ascending, float64.

    Without ``points`` every query looks among the other queries. A neighbour that does not exist is infinitely far.
    Rows must be finite. Never more than a block of distances is in memory, and no digit is lost at large offsets:

    A matrix product of centred float32 rows gives a *lower bound* of every squared distance, the rounding of the
    product included. The points with the smallest bounds are measured again in float64, by differences. If the second
    nearest of them is no farther than the bound of everything else, it is the second nearest of all; if not, the same
    is done in float64, and at last by differences to all points. The result is right to a relative 1e-9.
    """
    return find_two_nearest(queries, points)[0]


@torch.no_grad()
def find_two_nearest(
    queries: Float[Tensor, "queries features"], points: Float[Tensor, "points features"] | None = None
) -> tuple[Float[Tensor, "queries 2"], Int[Tensor, "queries 2"]]:
    """Return what ``two_nearest`` does, and which points these are; −1 for a neighbour that does not exist."""
    if queries.device.type == "mps":  # it has no float64
        queries, points = queries.cpu(), None if points is None else points.cpu()
    among_queries = points is None
    points = queries if points is None else points
    nearest = torch.full((len(queries), 2), torch.inf, dtype=torch.float64, device=queries.device)
    which = torch.full_like(nearest, -1, dtype=torch.int64)
    pending = torch.arange(len(queries), device=queries.device)
    if len(points) == 0:
        return nearest, which
    centre, scale = _frame(queries, points)
    for dtype in _search_types():
        if len(pending):
            pending = _search(queries, points, pending, (nearest, which), centre, scale, dtype, among_queries)
    for rows in torch.split(pending, max(1, _BLOCK // 4 // len(points))):
        nearest[rows], which[rows] = _exhaustive(queries[rows], points, rows if among_queries else None)
    return nearest, which.masked_fill_(nearest.isinf(), -1)


def merge_nearest(first: Float[Tensor, "queries 2"], second: Float[Tensor, "queries 2"]) -> Float[Tensor, "queries 2"]:
    """Return the two smallest distances of every query to two disjoint sets of points."""
    return torch.cat([first, second], dim=1).topk(2, dim=1, largest=False).values


def _search_types() -> tuple[torch.dtype, ...]:
    """Return the types to search in. float32 only where its products are known to be carried out in float32."""
    try:
        plain = torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # set through the newer switches, which this getter refuses to translate
        plain = False
    return (torch.float32, torch.float64) if plain else (torch.float64,)


def _frame(queries: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean of ``points`` and a power of two near the largest entry, against over- and underflow."""
    largest = torch.stack([rows.abs().max().double() for rows in (queries, points) if rows.numel()] or [torch.ones(())])
    centre = torch.stack([block.double().sum(0) for block in _blocks(points)]).sum(0) / len(points)
    return centre, largest.max().clamp(min=1e-300).log2().floor().exp2()


def _blocks(rows: Tensor) -> tuple[Tensor, ...]:
    return torch.split(rows, max(1, _PASS // max(1, rows.shape[1])))


def _shadow(rows: Tensor, centre: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """Return ``rows`` centred, scaled and rounded to ``dtype``, and in a last column half their squared norms, lowered.

    With unit roundoff u, the product of two rows of n features is off by at most (n + O(1))·u·|a||b|, in whatever order
    it is summed (Higham, *Accuracy and Stability of Numerical Algorithms*, section 3.1), which is no more than the
    mean of the two squared norms times (n + O(1))·u: each row's norm pays its half in advance.
    """
    features, kind = rows.shape[1], torch.finfo(dtype)
    error = 1.01 * (features + 10) * kind.eps / 2
    shadow = torch.empty(len(rows), features + 1, dtype=dtype, device=rows.device)
    start = 0
    for block in _blocks(rows):
        centred = (block - centre).div_(scale)
        norms = torch.linalg.vector_norm(centred, dim=1)
        shadow[start : start + len(block), :-1] = centred
        shadow[start : start + len(block), -1] = norms.square() * (0.5 * (1 - error)) - features * kind.tiny
        start += len(block)
    return shadow


def _search(
    queries: Tensor,
    points: Tensor,
    pending: Int[Tensor, " pending"],
    found: tuple[Tensor, Tensor],
    centre: Tensor,
    scale: Tensor,
    dtype: torch.dtype,
    among_queries: bool,
) -> Int[Tensor, " left"]:
    """Write distances and points of the certified ones among the ``pending`` rows into ``found``; return the rest."""
    shadow = _shadow(points, centre, scale, dtype)
    kept = min(_MARGINS[-1] + 1, len(points))
    slack = 1 - _TOLERANCE if dtype == torch.float64 else 1.0
    chunks = torch.split(pending, max(1, _BLOCK // len(points)))
    buffer = shadow.new_empty(len(chunks[0]), len(points))
    left = []
    for rows in chunks:
        block = shadow[rows] if among_queries else _shadow(queries[rows], centre, scale, dtype)
        floor = block[:, -1:].to(torch.float64, copy=True)
        block = block.neg_()
        block[:, -1] = 1  # so that the product is half the squared norm of the point minus the inner product
        with torch.autocast(block.device.type, enabled=False):
            bounds = torch.mm(block, shadow.T, out=buffer[: len(rows)])
        if among_queries:
            bounds[torch.arange(len(rows), device=rows.device), rows] = torch.inf
        bounds, candidates = _smallest(bounds, kept)
        others = 2 * scale.square() * (bounds.double() + floor)
        others = torch.nn.functional.pad(others, (0, _MARGINS[-1] + 1 - kept), value=torch.inf)
        for margin in _MARGINS:
            exact = _distances(queries[rows], points, candidates[:, :margin]).masked_fill_(
                bounds[:, :margin].isinf(), torch.inf
            )
            exact, places = _two_smallest(exact)
            second = exact[:, 1]
            certain = (second.square() * slack <= others[:, margin]) | (second == 0)
            settled = rows[certain]
            found[0][settled] = exact[certain]
            found[1][settled] = candidates[certain].gather(1, places[certain])
            rows, candidates, bounds, others = (t[~certain] for t in (rows, candidates, bounds, others))
        left.append(rows)
    return torch.cat(left)


def _smallest(bounds: Float[Tensor, "queries points"], count: int) -> tuple[Tensor, Tensor]:
    """Return the ``count`` smallest ``bounds`` of each row, ascending, and their columns, as ``topk`` does.

    They lie in the ``count`` groups of columns whose smallest bounds are smallest: others hold none that is smaller.
    """
    groups = bounds.shape[1] // _GROUP
    if groups <= 4 * count:
        return bounds.topk(count, dim=1, largest=False)
    grouped = bounds[:, : groups * _GROUP].view(-1, _GROUP, groups)
    best = grouped.amin(1).topk(count, dim=1, largest=False).indices
    columns = (best[:, None] + groups * torch.arange(_GROUP, device=best.device)[:, None]).flatten(1)
    rest = torch.arange(groups * _GROUP, bounds.shape[1], device=best.device).expand(len(bounds), -1)
    columns = torch.cat([columns, rest], dim=1)
    chosen, places = bounds.gather(1, columns).topk(count, dim=1, largest=False)
    return chosen, columns.gather(1, places)


def _distances(
    queries: Tensor, points: Tensor, candidates: Int[Tensor, "queries candidates"]
) -> Float[Tensor, "queries candidates"]:
    """Return the distances from each query to its own candidates, from float64 differences."""
    block = max(1, _PASS // max(1, candidates.shape[1] * queries.shape[1]))
    found = [
        torch.linalg.vector_norm(points[index].double().sub_(rows[:, None]), dim=2)
        for rows, index in zip(torch.split(queries, block), torch.split(candidates, block), strict=True)
    ]
    return torch.cat(found)


def _two_smallest(distances: Float[Tensor, "queries points"]) -> tuple[Tensor, Tensor]:
    """Return the two smallest ``distances`` (queries, 2), infinite where there are no two, and their columns."""
    smallest = distances.topk(min(2, distances.shape[1]), dim=1, largest=False)
    missing = (0, 2 - smallest.values.shape[1])
    pad = torch.nn.functional.pad
    return pad(smallest.values, missing, value=torch.inf), pad(smallest.indices, missing)


def _exhaustive(queries: Tensor, points: Tensor, itself: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the two smallest distances from float64 differences to all points, and which; ``itself`` is left out."""
    distances = torch.cat(
        [
            torch.cdist(queries.double(), block.double(), compute_mode="donot_use_mm_for_euclid_dist")
            for block in _blocks(points)
        ],
        dim=1,
    )
    if itself is not None:
        distances[torch.arange(len(itself), device=itself.device), itself] = torch.inf
    return _two_smallest(distances)
