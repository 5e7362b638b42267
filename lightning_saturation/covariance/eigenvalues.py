"""The eigenproblems of all layers, shared among the ranks; of few rows without the covariance."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_saturation.covariance.moments import Moments, add_rows, covariance, empty_sums, from_sums
from lightning_saturation.covariance.ranks import all_reduce, rank_and_world, share_by_cost
from lightning_saturation.covariance.spectrum import covariance_eigenvalues, eigenvalues_together
from lightning_saturation.shapes import Float

# From this width on a GPU is busy with one problem.
_NARROW = 1024
_BLOCK = 2**23  # numbers in a temporary: 64 MiB in float64


def eigenvalues_over_ranks(moments: Mapping[str, Moments], *, group: Any = None) -> dict[str, Tensor | None]:
    """Return the eigenvalues (features,), float64, of every layer's covariance, largest first; a collective call.

    They are on the CPU and bitwise the same on all ranks; None stands for a problem that could not be solved.
    ``moments`` must already be the same on all ranks. Each rank solves its share; one all-reduce brings them together.
    """
    rank, world = rank_and_world(group)
    mine = share_by_cost({name: len(m.mean) ** 3 for name, m in moments.items()}, world)[rank]
    together = _solve_together({name: moments[name] for name in mine})
    solved = {
        name: torch.zeros(len(m.mean), dtype=torch.float64)
        if name not in mine
        else together[name].cpu()
        if name in together
        else _solve(name, len(m.mean), lambda m: covariance_eigenvalues(covariance(m)), m)
        for name, m in moments.items()
    }
    if world > 1 and solved:
        packed = all_reduce(torch.cat(list(solved.values())), group)
        parts = torch.split(packed, [len(part) for part in solved.values()])
        solved = {name: part.clone() for name, part in zip(solved, parts, strict=True)}
    return {name: None if part.isnan().any() else part for name, part in solved.items()}


def eigenvalues_of_few(rows: Mapping[str, Tensor]) -> dict[str, Tensor | None]:
    """Return the same of layers with fewer ``rows`` (samples, features) than features, all of them finite.

    None stands for a problem that could not be solved.
    """
    solved = {name: _solve(name, few.shape[1], gram_eigenvalues, few) for name, few in rows.items()}
    return {name: None if part.isnan().any() else part for name, part in solved.items()}


def gram_eigenvalues(rows: Float[Tensor, "samples features"]) -> Float[Tensor, " features"]:
    """Return the eigenvalues of the unbiased covariance of ``rows``, float64, largest first; zeros for one row.

    The (samples, samples) products of centred rows have the same eigenvalues but for zeros, and eight of them take
    microseconds where a covariance of 2,000 features takes a second. Raises as
    :func:`~.spectrum.covariance_eigenvalues`.

    >>> gram_eigenvalues(torch.tensor([[0.0, 0.0, 1.0], [2.0, 0.0, 1.0]]))
    tensor([2., 0., 0.], dtype=torch.float64)
    """
    samples, features = rows.shape
    products = torch.zeros(samples, samples, dtype=torch.float64, device=rows.device)
    for part in torch.split(rows, max(1, _BLOCK // max(samples, 1)), dim=1):
        centred = part.double() - part.double().mean(0)
        # Autocast would run the product in half precision; float64 is immune to it.
        products.addmm_(centred, centred.T)
    eigenvalues = covariance_eigenvalues(products / max(samples - 1, 1))[:features]
    return torch.cat([eigenvalues, eigenvalues.new_zeros(features - len(eigenvalues))])


@torch.no_grad()
def pca_eigenvalues(rows: Float[Tensor, "samples features"]) -> Float[Tensor, " components"]:
    """Return the same, min(samples, features) of them, whichever there are fewer of; rows must be finite."""
    samples, features = rows.shape
    if samples <= features:
        return gram_eigenvalues(rows)[:samples]
    sums = empty_sums(features, device=rows.device)
    for block in torch.split(rows, max(1, _BLOCK // max(1, features))):
        add_rows(sums, block, single=False)
    return covariance_eigenvalues(covariance(from_sums(sums)))


def _solve_together(moments: Mapping[str, Moments]) -> dict[str, Tensor]:
    """Return the eigenvalues of narrow layers on a GPU, which solves many at once; {} where one of them fails."""
    narrow = {name: m for name, m in moments.items() if m.mean.is_cuda and len(m.mean) < _NARROW}
    if not narrow:
        return {}
    try:
        return dict(zip(narrow, eigenvalues_together([covariance(m) for m in narrow.values()]), strict=True))
    except (ValueError, RuntimeError):
        return {}  # one by one, so that the others are not missing too


def _solve(name: str, features: int, solve: Callable[[Any], Tensor], given: Any) -> Tensor:
    """Return the eigenvalues that ``solve`` finds for what is ``given``, on the CPU; NaN where it fails."""
    try:
        return solve(given).cpu()
    except (ValueError, RuntimeError) as error:
        warnings.warn(f"The saturation of layer {name!r} is missing in this window: {error}", stacklevel=2)
        return torch.full((features,), torch.nan, dtype=torch.float64)
