"""The eigenvalues of a covariance that its reported numbers need, and no more: certified, or dense instead."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_saturation.functional.krylov import BlockKrylov
from lightning_saturation.functional.ritz import RitzBounds, is_positive
from lightning_saturation.functional.shapes import Float
from lightning_saturation.functional.spectrum import check_delta, covariance_eigenvalues

# Below this width the dense solver takes a fraction of a second and the bookkeeping of the fast one does not pay.
DENSE_BELOW = 1024
# A basis of a fifth of the width costs about a quarter of the dense solver; what needs more goes dense at once.
_BASIS_SHARE = 0.2


class TopSpectrum(NamedTuple):
    """The largest eigenvalues of a covariance (float64, descending), with what is known of all of them exactly.

    ``eigenvalues`` are all ``features`` of them, or the first ``k(delta)``. ``total`` is the sum of all and ``squares``
    the sum of their squares: the trace and the squared Frobenius norm.
    """

    eigenvalues: Float[Tensor, " top"]
    features: int
    total: float
    squares: float

    @property
    def complete(self) -> bool:
        """Whether ``eigenvalues`` are all of them."""
        return len(self.eigenvalues) == self.features


def dense_spectrum(covariance: Float[Tensor, "features features"]) -> TopSpectrum:
    """Return all eigenvalues of ``covariance`` (features, features), by the dense float64 solver.

    Raises ``ValueError`` for NaN or infinity, which ``eigvalsh`` may pass over in silence.
    """
    matrix = _checked(covariance)
    eigenvalues = covariance_eigenvalues(matrix)
    return TopSpectrum(eigenvalues, len(matrix), float(matrix.trace()), float(matrix.square().sum()))


def dense_spectra(covariances: Sequence[Tensor]) -> list[TopSpectrum]:
    """Return all eigenvalues of each of ``covariances``, those of one width solved together.

    A GPU solves many small problems in little more time than one.
    """
    matrices = [_checked(covariance) for covariance in covariances]
    found: dict[int, TopSpectrum] = {}
    for width in {len(matrix) for matrix in matrices}:
        alike = [index for index, matrix in enumerate(matrices) if len(matrix) == width]
        solved = torch.linalg.eigvalsh(torch.stack([matrices[index] for index in alike]))
        for index, eigenvalues in zip(alike, solved.flip(1).clamp(min=0), strict=True):
            matrix = matrices[index]
            found[index] = TopSpectrum(eigenvalues, width, float(matrix.trace()), float(matrix.square().sum()))
    return [found[index] for index in range(len(matrices))]


def top_spectrum(covariance: Float[Tensor, "features features"], *, delta: float = 0.99) -> TopSpectrum:
    """Return enough of the largest eigenvalues of ``covariance`` (features, features) to know ``k(delta)`` for certain.

    The intrinsic dimension is the integer that all eigenvalues from ``torch.linalg.eigvalsh`` in float64 give. A block
    Krylov space grows until its Ritz values settle it; then, for the ``p`` best Ritz pairs ``(Θ, X)`` with residual
    ``R = ΣX − XΘ`` and ``C`` the covariance on the complement of ``X``,

    - from below, any Ritz values bound the sums: ``Σ_{i≤j} θ_i ≤ Σ_{i≤j} λ_i`` (Ky Fan);
    - from above, ``Σ ⪯ diag(Θ + RᵀR/ε, C + εI)`` for every ``ε > 0``, because ``[RᵀR/ε, −Rᵀ; −R, εI] ⪰ 0``. With
      ``λ_1(C) ≤ μ`` this gives ``Σ_{i≤j} λ_i ≤ ‖R‖²/ε + max_a (Σ_{i≤a} θ_i + min((j−a)(μ+ε), tr C + (j−a)ε))``.

    ``μ`` comes from the exact trace where that suffices, else from one Cholesky factorisation of ``μI − Σ + XΘXᵀ``,
    whose success proves it, because ``C`` is a compression of ``Σ − XΘXᵀ``. Where the two bounds do not settle ``k``
    beyond rounding (a tie at the threshold, a flat spectrum, a saturation above about a tenth), the dense solver does.
    Eigenvalues that are not all of them are exact to a millionth of the last one. The space starts from a generator of
    its own: the result is deterministic and draws from no other.

    ``covariance`` must be positive semidefinite up to rounding, as covariances are.
    Raises ``ValueError`` for NaN or infinity and for a ``delta`` outside (0, 1].
    Source: Li and Li, *A note on eigenvalues of perturbed Hermitian matrices*, 2005, for bounds of this kind.

    >>> top_spectrum(torch.diag(torch.tensor([3.0, 1.0]))).eigenvalues
    tensor([3., 1.], dtype=torch.float64)
    """
    check_delta(delta)
    matrix = _checked(covariance)
    return _krylov_spectrum(matrix, delta) or dense_spectrum(matrix)


def _checked(covariance: Tensor) -> Tensor:
    """Return ``covariance`` in float64, on a device that has it."""
    if covariance.shape[0] != covariance.shape[1]:
        raise ValueError(f"Expected a square `covariance`, got shape {tuple(covariance.shape)}.")
    matrix = covariance.detach()
    matrix = matrix.cpu().double() if matrix.device.type == "mps" else matrix.double()
    # One pass without a mask: NaN and infinity survive a sum.
    if not torch.isfinite(matrix.sum()):
        raise ValueError("Expected a finite `covariance`, got NaN or infinity in it.")
    return matrix


def _krylov_spectrum(matrix: Tensor, delta: float) -> TopSpectrum | None:
    """Return the certified top of the spectrum, or None where the dense solver is the better or the only way."""
    features = len(matrix)
    total, squares = float(matrix.trace()), float(matrix.square().sum())
    limit = int(features * _BASIS_SHARE)
    # Σ_{i≤k} λ_i ≤ √k ‖Σ‖_F, so k is at least δ² times the participation ratio.
    if features < DENSE_BELOW or total <= 0 or (delta * total) ** 2 > limit * squares:
        return None
    rounding = 8 * features * torch.finfo(torch.float64).eps * total
    space = BlockKrylov(matrix, limit=limit)
    while space.grow():
        missing = delta * total - space.captured
        if missing > 0:
            # Later blocks capture less than this one: if even its pace is too slow, stop paying.
            if space.size + space.block * missing / max(space.last_gain, 1e-300) > limit:
                return None
            continue
        ritz = space.ritz()
        k = int((ritz.values.cumsum(0) < delta * total).sum()) + 1
        values, defects = ritz.values.cpu(), ritz.residuals.square().cumsum(0).cpu()
        k = int((values.cumsum(0) < delta * total).sum()) + 1
        # With more pairs the rest lies further below the k-th, with fewer the residual is smaller: try both ways.
        for pairs in (k, k + space.block // 4, k + space.block, k + 2 * space.block):
            if pairs >= space.size:
                break
            bounds = RitzBounds(values[:pairs], float(defects[pairs - 1]), total, delta * total, rounding)
            if bounds.settles(k, 1.02 * float(values[pairs])):
                found = _certified(matrix, *space.pairs(pairs), k, bounds)
                if found is not None:
                    return TopSpectrum(found, features, total, squares)
                break  # a direction is still missing: grow on
    return None


def _certified(matrix: Tensor, vectors: Tensor, products: Tensor, k: int, guess: RitzBounds) -> Tensor | None:
    """Return the ``k`` largest eigenvalues if Ritz ``vectors`` (rows) and a factorisation prove them, else None."""
    eps, features = torch.finfo(torch.float64).eps, len(matrix)
    departure = vectors @ vectors.T
    departure.diagonal().sub_(1)
    if float(departure.abs().max()) > features * eps:
        return None
    projected = products @ vectors.T
    projected = (projected + projected.T) / 2
    residual = torch.addmm(products, projected, vectors, alpha=-1)
    values = torch.linalg.eigvalsh(projected).flip(0)
    defect = float(residual.square().sum()) + guess.rounding**2
    bounds = guess._replace(values=values.cpu(), defect=defect)
    # The trace of the complement bounds its largest eigenvalue: enough where few directions hold almost everything.
    free = max(bounds.total - float(bounds.sums[-1]), 0.0) + bounds.rounding
    if not bounds.settles(k, free):
        ceiling = bounds.loosest_ceiling(k)
        # A factorisation that ends proves positivity up to a rounding of eps * features * trace (Higham 2002, 10.1).
        shift = ceiling * (1 - eps * features**2) - bounds.rounding
        if shift <= 0:
            return None
        shifted = torch.addmm(matrix, vectors.T, projected @ vectors, beta=-1)
        shifted.diagonal().add_(shift)
        if not is_positive(shifted):
            return None
    top: Tensor = values[:k]
    return top


def effective_rank_bounds(spectrum: TopSpectrum) -> tuple[float, float]:
    """Return bounds on the effective rank, both ends possible; equal ends for a complete spectrum, 0 without variance.

    Of the eigenvalues that ``spectrum`` leaves out, the number ``m``, the sum ``t`` and the sum of squares ``q`` are
    exact. With ``p`` shares of the total, their entropy ``−Σ p log p`` is at most that of ``m`` equal ones,
    ``t log(m/t)``, and, ``log`` being concave, at least ``−t log(q/t)``.
    """
    if spectrum.total <= 0:
        return 0.0, 0.0
    shares = spectrum.eigenvalues.clamp(min=0) / spectrum.total
    known = float(torch.special.entr(shares).sum())
    left = spectrum.features - len(shares)
    t = max(1.0 - float(shares.sum()), 0.0) if left else 0.0
    if t <= 0:
        return math.exp(known), math.exp(known)
    # The difference of squares is good to eps only; no share left out exceeds the last one kept.
    q = spectrum.squares / spectrum.total**2 - float(shares.square().sum()) + 64 * torch.finfo(torch.float64).eps
    q = min(max(q, t * t / left), t * float(shares[-1]))
    return math.exp(known - t * math.log(q / t)), math.exp(known + t * math.log(left / t))
