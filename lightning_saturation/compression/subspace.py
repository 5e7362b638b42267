"""The subspace that stands for a layer's outputs: how to get into it and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lightning_saturation.covariance.spectrum import check_delta, intrinsic_dimension
from lightning_saturation.similarity.cca import correlate, whiten
from lightning_saturation.similarity.pairs import PairMoments

Basis = Literal["svcca", "pca", "random", "active"]


class OutputMoments(NamedTuple):
    """Mean of a layer's outputs, and their joint scatters with what they are compared with."""

    mean: Tensor
    pair: PairMoments


class Subspace(NamedTuple):
    """Outputs ``y`` become ``centre + (y − centre) @ encode @ decode``."""

    centre: Tensor
    encode: Tensor
    decode: Tensor

    @property
    def rank(self) -> int:
        """The number of directions."""
        return self.encode.shape[1]


class Size(NamedTuple):
    """How many directions to keep: just one of the three is given."""

    ranks: int | Mapping[str, int] | None = None
    delta: float | None = None
    keep: float | None = None

    def check(self) -> Size:
        """Return this if it is a valid choice, else raise a ``ValueError``."""
        given = {name: value for name, value in self._asdict().items() if value is not None}
        if len(given) != 1:
            raise ValueError(f"Expected one of `ranks`, `delta` and `keep`, got {given or 'none of them'}.")
        if self.delta is not None:
            check_delta(self.delta)
        if self.keep is not None and not 0 < self.keep <= 1:
            raise ValueError(f"Expected `keep` in (0, 1], got {self.keep}.")
        ranks = self.ranks.values() if isinstance(self.ranks, Mapping) else [self.ranks or 1]
        if any(rank < 1 for rank in ranks) or self.ranks == 0:
            raise ValueError(f"Expected `ranks` of at least 1, got {self.ranks}.")
        return self

    def of(self, name: str, scatter: Tensor) -> int:
        """Return the number of directions for layer ``name``, at most its features."""
        features = len(scatter)
        if self.delta is not None:
            wanted = intrinsic_dimension(torch.linalg.eigvalsh(scatter), delta=self.delta)
        elif self.keep is not None:
            wanted = round(self.keep * features)
        else:
            wanted = self.ranks.get(name, features) if isinstance(self.ranks, Mapping) else int(self.ranks or 0)
        return max(1, min(wanted, features))


def subspace(moments: OutputMoments, rank: int, *, basis: Basis, seed: int = 0) -> Subspace:
    """Return the subspace of ``rank`` directions of a layer's outputs, float64.

    - ``"pca"``: principal directions of the outputs;
    - ``"svcca"``: those outputs that correlate most with the other side; every unit is predicted from them by least
      squares, as projecting units onto a subspace means where a unit is the vector of its values over the data. After
      them come the principal directions of what they leave;
    - ``"active"`` and ``"random"`` neurons: those of largest mean square output, or drawn from ``seed``; the others are
      held at their mean.
    """
    scatter = moments.pair.xx
    if basis == "pca":
        vectors = _principal(scatter, rank)
        return Subspace(moments.mean, vectors, vectors.T)
    if basis == "svcca":
        return Subspace(moments.mean, *_canonical(moments.pair, rank))
    if basis == "active":
        activity = scatter.diagonal() / moments.pair.samples + moments.mean.square()
        chosen = activity.argsort(descending=True)[:rank]
    else:
        order = torch.randperm(len(scatter), generator=torch.Generator().manual_seed(seed))
        chosen = order[:rank].to(scatter.device)
    picked = torch.eye(len(scatter), dtype=scatter.dtype, device=scatter.device)[:, chosen]
    return Subspace(moments.mean, picked, picked.T)


def onto_neurons(space: Subspace, moments: OutputMoments, count: int) -> Subspace:
    """Return ``space`` with all but ``count`` neurons held at their mean, those that lie in it with most of their own.

    A neuron's share is that of its variance which the subspace predicts; one that never varies has none.

    Source: Raghu et al., *SVCCA*, 2017, figure 2b.
    """
    scatter = moments.pair.xx
    predicted = ((space.encode.T @ scatter @ space.encode) @ space.decode * space.decode).sum(0)
    share = predicted / torch.where(scatter.diagonal() > 0, scatter.diagonal(), torch.inf)
    chosen = share.argsort(descending=True)[:count]
    kept = torch.zeros_like(share)
    kept[chosen] = 1
    return Subspace(space.centre, space.encode, space.decode * kept)


def _principal(scatter: Tensor, rank: int) -> Tensor:
    vectors: Tensor = torch.linalg.eigh(scatter).eigenvectors
    return vectors.flip(1)[:, :rank]


def _canonical(pair: PairMoments, rank: int) -> tuple[Tensor, Tensor]:
    directions = correlate(pair, whiten(pair.xx, delta=0.99), whiten(pair.yy, delta=0.99)).x_directions[:, :rank]
    decode = directions.T @ pair.xx  # the least-squares prediction: directions have sum of squares 1
    if (more := rank - directions.shape[1]) <= 0:
        return directions, decode
    left = torch.eye(len(pair.xx), dtype=pair.xx.dtype, device=pair.xx.device) - directions @ decode
    rest = _principal(left.T @ pair.xx @ left, more)
    return torch.cat([directions, left @ rest], dim=1), torch.cat([decode, rest.T])
