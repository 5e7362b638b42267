"""Numbers read off the eigenvalues of a covariance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_saturation.arguments import check_share
from lightning_saturation.shapes import Float


def _variances(eigenvalues: Tensor) -> Tensor:
    """Return ``eigenvalues`` in float64, negative rounding residue clipped, largest first."""
    return eigenvalues.double().clamp(min=0).sort(descending=True).values


def check_delta(delta: Any) -> float:
    """Return ``delta`` if it is a number in (0, 1], else raise a ``ValueError`` or ``TypeError``."""
    return check_share("delta", delta)


def intrinsic_dimension(eigenvalues: Float[Tensor, " features"], *, delta: float = 0.99) -> int:
    """Return the smallest ``k`` whose ``k`` largest eigenvalues hold ``delta`` of their sum; 0 without any variance.

    Ties count as reached, with a slack of ``features * eps`` of the sum, so that a flat spectrum of four equal values
    needs exactly two of them at ``delta=0.5``. NaN eigenvalues are an error, not a number.

    Source: Shenk et al., *Spectral Analysis of Latent Representations*, section 2.

    >>> intrinsic_dimension(torch.tensor([0.1, 0.7, 0.2]), delta=0.85)
    2
    """
    check_delta(delta)
    variance = _variances(eigenvalues)
    total = variance.sum()
    if not torch.isfinite(total):
        raise ValueError("Expected finite `eigenvalues`, got NaN or infinity among them.")
    if total <= 0:
        return 0
    slack = total * len(variance) * torch.finfo(torch.float64).eps
    return int((variance.cumsum(0) < delta * total - slack).sum()) + 1


def saturation(
    eigenvalues: Float[Tensor, " features"], *, delta: float = 0.99, continuous: bool = False
) -> Float[Tensor, ""]:
    """Return the share of the feature space that the data fills: intrinsic dimension over features, in [0, 1].

    With ``continuous=True`` the last, partly needed direction counts with the part that is needed,
    ``k - 1 + (delta * total - sum of the k - 1 largest) / k-th``: a smooth quantity for everything that is compared
    over time, never above the integer count.

    Source: Shenk et al., *Spectral Analysis of Latent Representations*, equation 1.

    >>> saturation(torch.tensor([0.98, 0.015, 0.005, 0.0]))
    tensor(0.5000, dtype=torch.float64)
    """
    k = intrinsic_dimension(eigenvalues, delta=delta)
    features = max(len(eigenvalues), 1)
    count = eigenvalues.new_tensor(float(k), dtype=torch.float64)
    if continuous and k > 0:
        variance = _variances(eigenvalues)
        missing = delta * variance.sum() - variance[: k - 1].sum()
        count = k - 1 + (missing / variance[k - 1]).clamp(0, 1)
    return count / features


def effective_rank(eigenvalues: Float[Tensor, " features"]) -> Float[Tensor, ""]:
    """Return the exponential of the spectrum's entropy, in [1, features]; 0 without any variance.

    Source: Roy and Vetterli, *The effective rank: a measure of effective dimensionality*, 2007.

    >>> effective_rank(torch.ones(4))
    tensor(4., dtype=torch.float64)
    """
    variance = _variances(eigenvalues)
    total = variance.sum()
    share = variance / total.clamp(min=torch.finfo(torch.float64).tiny)
    return torch.where(total > 0, torch.special.entr(share).sum().exp(), torch.zeros_like(total))


def participation_ratio(eigenvalues: Float[Tensor, " features"]) -> Float[Tensor, ""]:
    """Return ``(sum of eigenvalues)² / sum of squared eigenvalues``, in [1, features]; 0 without any variance.

    >>> participation_ratio(torch.tensor([1.0, 1.0, 0.0]))
    tensor(2., dtype=torch.float64)
    """
    variance = _variances(eigenvalues)
    share = variance / variance.max().clamp(min=torch.finfo(torch.float64).tiny) if len(variance) else variance
    squares = share.square().sum()
    return torch.where(squares > 0, share.sum().square() / squares, torch.zeros_like(squares))


def stable_rank(eigenvalues: Float[Tensor, " features"]) -> Float[Tensor, ""]:
    """Return ``sum of eigenvalues / largest eigenvalue``, in [1, features]; 0 without any variance.

    >>> stable_rank(torch.tensor([2.0, 1.0, 1.0]))
    tensor(2., dtype=torch.float64)
    """
    variance = _variances(eigenvalues)
    largest = variance[0] if len(variance) else variance.sum()
    return torch.where(largest > 0, variance.sum() / largest, torch.zeros_like(largest))


def covariance_eigenvalues(covariance: Float[Tensor, "features features"]) -> Float[Tensor, " features"]:
    """Return the eigenvalues of a symmetric ``covariance``, float64, largest first, rounding residue clipped at 0.

    A solver that fails is tried once more on the CPU. Raises ``ValueError`` for NaN or infinity, of which LAPACK makes
    plausible numbers, and ``torch.linalg.LinAlgError`` when the CPU fails too.
    """
    covariance = covariance.double()
    if not covariance.isfinite().all():
        raise ValueError("Expected a finite `covariance`, got NaN or infinity in it.")
    try:
        eigenvalues = torch.linalg.eigvalsh(covariance)
    except RuntimeError:  # LinAlgError among them
        eigenvalues = torch.linalg.eigvalsh(covariance.cpu()).to(covariance.device)
    return _variances(eigenvalues)


def eigenvalues_together(covariances: Sequence[Tensor]) -> list[Tensor]:
    """Return :func:`covariance_eigenvalues` of each of ``covariances``, those of one width solved together.

    A GPU solves many small problems in little more time than one. Raises as for one, if any of them fails.
    """
    found: dict[int, Tensor] = {}
    for width in {len(covariance) for covariance in covariances}:
        alike = [index for index, covariance in enumerate(covariances) if len(covariance) == width]
        matrices = torch.stack([covariances[index].double() for index in alike])
        if not matrices.isfinite().all():
            raise ValueError("Expected a finite `covariance`, got NaN or infinity in it.")
        found |= zip(alike, torch.linalg.eigvalsh(matrices).flip(1).clamp(min=0), strict=True)
    return [found[index] for index in range(len(covariances))]
