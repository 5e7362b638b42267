"""How alike the geometries of two representations are: linear kernel alignment and the Procrustes distance."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_saturation.shapes import Float
from lightning_saturation.similarity.pairs import PairMoments, as_pair


def linear_cka(
    x: Float[Tensor, "x_samples x_features"] | PairMoments,
    y: Float[Tensor, "y_samples y_features"] | None = None,
    *,
    debiased: bool = False,
) -> Float[Tensor, ""]:
    """Return the linear centred kernel alignment of ``x`` and ``y`` (0-d): in [0, 1], debiased at most 1.

    ``x`` and ``y`` are rows of the same samples, or ``x`` holds their moments. Invariant to orthogonal maps, scaling
    and offsets of either side, not to affine maps. With few samples the plain value grows towards 1 whatever the data;
    ``debiased=True`` uses unbiased estimates of all three terms, is near 0 for unrelated data and may be negative.
    NaN where one side has no variance or, debiased, with fewer than four samples or rows beyond 1e75, whose fourth
    powers float64 does not hold.

    Source: Kornblith et al., *Similarity of neural network representations revisited*, 2019, equation 4; debiased:
    Song et al., *Feature selection via dependence maximization*, 2012, equation 5.

    >>> x = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    >>> linear_cka(x, 5 - 2 * x)
    tensor(1., dtype=torch.float64)
    """
    pair = as_pair(x, y)
    # Of unit total variance: squares of scatters of rows at 1e±80 are no numbers any more.
    totals = torch.stack([pair.xx.trace(), pair.yy.trace()])
    xx, yy, xy = pair.xx / totals[0], pair.yy / totals[1], pair.xy / totals[0].sqrt() / totals[1].sqrt()
    if debiased:
        if pair.lengths is None:
            raise ValueError("Expected moments with `lengths` for the debiased alignment, got None.")
        own = pair.lengths / totals[:, None] / totals
        both = unbiased_hsic(xy.square().sum(), own[0, 1], pair.samples)
        x_own = unbiased_hsic(xx.square().sum(), own[0, 0], pair.samples)
        y_own = unbiased_hsic(yy.square().sum(), own[1, 1], pair.samples)
        # Rounding can leave a tiny negative estimate for a side that hardly varies.
        aligned: Tensor = both / (x_own.clamp(min=0) * y_own.clamp(min=0)).sqrt()
        return torch.where((pair.samples > 3) & own.isfinite().all(), aligned, torch.nan)
    alignment: Tensor = (xy / xx.norm()).norm() * (xy.norm() / yy.norm())
    return alignment


def unbiased_hsic(products: Float[Tensor, ""], lengths: Float[Tensor, ""], samples: Tensor) -> Float[Tensor, ""]:
    """Return the unbiased estimate of the Hilbert–Schmidt independence criterion of two linear kernels of trace 1.

    With the rows centred (the estimate does not depend on the origin) and the kernels' diagonals set to zero,
    ``tr K̃L̃ = ‖XᵀY‖² − Σ‖xᵢ‖²‖yᵢ‖²`` (``products − lengths``), ``1ᵀK̃1 = −Σ‖xᵢ‖² = −1``, and
    ``1ᵀK̃L̃1 = Σ‖xᵢ‖²‖yᵢ‖²``: nothing of the size samples × samples is ever needed.

    Source: Song et al., *Feature selection via dependence maximization*, 2012, equation 5.
    """
    n = samples.double()
    return (products - lengths + 1 / ((n - 1) * (n - 2)) - 2 * lengths / (n - 2)) / (n * (n - 3))


def procrustes(
    x: Float[Tensor, "x_samples x_features"] | PairMoments,
    y: Float[Tensor, "y_samples y_features"] | None = None,
    *,
    normalize: bool = False,
) -> Float[Tensor, ""]:
    """Return the squared orthogonal Procrustes distance (0-d): what remains of ``‖x − y R‖²`` at the best rotation.

    Both sides are centred, the narrower one is padded with zeros, and the square sums over samples and features, so
    that it is in squared units of the features and grows with the samples. ``normalize=True`` scales both sides to
    unit norm first: in [0, 2], comparable between layers, invariant to scaling too, NaN where one side has no variance.
    Invariant to orthogonal maps and offsets of either side, not to affine maps.

    Source: Schönemann, *A generalized solution of the orthogonal Procrustes problem*, 1966; normalised: Ding, Denain
    and Steinhardt, *Grounding representation similarity through statistical testing*, 2021, section 2.

    >>> x = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]])
    >>> procrustes(x, 2 * x[:, [1, 0]] + 3)
    tensor(4.0000, dtype=torch.float64)
    """
    pair = as_pair(x, y)
    x_total, y_total = pair.xx.trace(), pair.yy.trace()
    shared: Tensor = torch.linalg.svdvals(pair.xy).sum()
    if normalize:
        return (2 - 2 * shared / x_total.sqrt() / y_total.sqrt()).clamp(0, 2)
    return (x_total + y_total - 2 * shared).clamp(min=0)
