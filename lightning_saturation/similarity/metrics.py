"""Similarities of two representations as metrics over one shared state."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_saturation.covariance.spectrum import check_delta
from lightning_saturation.similarity.cca import ProjectionWeighted, class_similarity, pwcca, svcca
from lightning_saturation.similarity.kernel_alignment import linear_cka, procrustes
from lightning_saturation.similarity.pair_metric import PairMetric
from lightning_saturation.similarity.pairs import PairMoments


class _Truncated(PairMetric):
    """Keeps, of each side, the directions that hold the share ``delta`` of its variance, or all where it is None."""

    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    def __init__(self, delta: float | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.delta = None if delta is None else check_delta(delta)


class SVCCA(_Truncated):
    """Return the SVCCA similarity of all rows seen: a 0-d tensor in [0, 1], NaN without variance on one side.

    ``update(x, y)`` takes rows (samples, features) of the same samples; ``delta`` is the share of each side's variance
    that is kept. The same for any split over batches and ranks.

    Source: Raghu et al., *SVCCA*, equation 1.

    >>> metric = SVCCA()
    >>> x = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0], [3.0, 1.0], [4.0, 0.0]])
    >>> metric.update(x, 3 - 2 * x)
    >>> metric.compute()
    tensor(1., dtype=torch.float64)
    """

    delta: float

    def __init__(self, delta: float = 0.99, **kwargs: Any) -> None:
        super().__init__(check_delta(delta), **kwargs)

    def _of(self, pair: PairMoments) -> Tensor:
        return svcca(pair, delta=self.delta)


class PWCCA(_Truncated):
    """Return the projection-weighted CCA similarity, the mean of both sides: 0-d, in [0, 1], NaN without variance.

    ``update(x, y)`` takes rows (samples, features) of the same samples; ``delta`` keeps the directions that hold this
    share of each side's variance, None all but rounding residue. ``sides()`` gives both sides apart.

    Source: Morcos, Raghu and Bengio, *Insights on representational similarity*, 2018, section 3.
    """

    def _of(self, pair: PairMoments) -> Tensor:
        return pwcca(pair, delta=self.delta).mean

    def sides(self) -> ProjectionWeighted:
        """Return the similarity from the side of ``x``, from that of ``y``, and their mean; a collective call."""
        return pwcca(self.pair(), delta=self.delta)


class LinearCKA(PairMetric):
    """Return the linear centred kernel alignment of all rows seen: 0-d, in [0, 1].

    ``update(x, y)`` takes rows (samples, features) of the same samples. ``debiased`` is near 0 for unrelated data
    however few the samples, and may be negative. NaN without variance on one side.

    Source: Kornblith et al., *Similarity of neural network representations revisited*, 2019, equation 4.
    """

    plot_upper_bound = 1.0

    def __init__(self, debiased: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.debiased = debiased

    def _of(self, pair: PairMoments) -> Tensor:
        return linear_cka(pair, debiased=self.debiased)


class Procrustes(PairMetric):
    """Return the squared orthogonal Procrustes distance of all rows seen (0-d); smaller is more alike.

    ``update(x, y)`` takes rows (samples, features) of the same samples. ``normalize`` scales both sides to unit norm:
    in [0, 2] then, NaN without variance on one side.

    Source: Ding, Denain and Steinhardt, *Grounding representation similarity through statistical testing*, 2021.
    """

    higher_is_better = False
    plot_lower_bound = 0.0

    def __init__(self, normalize: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.normalize = normalize

    def _of(self, pair: PairMoments) -> Tensor:
        return procrustes(pair, normalize=self.normalize)


class ClassSimilarity(_Truncated):
    """Return the canonical correlation of a representation with each class's logit (classes,), each in [0, 1].

    ``update(x, logits)`` takes rows (samples, features) and (samples, classes). NaN for a constant logit; empty before
    the first row.

    Source: Raghu et al., *SVCCA*, section 4.3.
    """

    def _of(self, pair: PairMoments) -> Tensor:
        return class_similarity(pair, delta=self.delta)

    def _of_nothing(self) -> Tensor:
        return torch.zeros(0, dtype=torch.float64, device=self.samples.device)
