"""The subspace that stands for a layer's outputs: what they are measured by, and how to get into it and back."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from lightning_saturation.capture.capture import capture
from lightning_saturation.capture.evaluation import Batches
from lightning_saturation.covariance.moments import ShiftedSums, add_rows, empty_sums, from_sums
from lightning_saturation.covariance.spectrum import check_delta, intrinsic_dimension
from lightning_saturation.similarity.cca import correlate, whiten
from lightning_saturation.similarity.pairs import PairMoments, split_moments

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

    def check(self, layers: Collection[str]) -> Size:
        """Return this if it is a valid choice for ``layers``, else raise a ``ValueError``."""
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
        if isinstance(self.ranks, Mapping) and (unknown := sorted(set(self.ranks) - set(layers))):
            raise ValueError(f"Expected `ranks` by names among {list(layers)}, got {unknown}.")
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


def output_moments(
    model: nn.Module, batches: Batches, *, layers: Sequence[str], reference: nn.Module | None, joint: bool
) -> dict[str, OutputMoments]:
    """Return the moments of every layer's outputs, each position a sample, in evaluation mode.

    With ``joint`` they are joint ones with the outputs of the layer of the same name in ``reference``, or, where that
    is None, with the model's own output for the sample.
    """
    sums: dict[str, tuple[ShiftedSums, int]] = {}
    models = [model] if reference is None or not joint else [model, reference]
    with batches.over(*models) as each:
        for batch, homes in each:
            (rows, answer), *others = (
                _rows(batches, m, batch, home, layers) for m, home in zip(models, homes, strict=True)
            )
            other = others[0][0] if others else None
            for name, x in rows.items():
                y = _other(name, x, other, answer) if joint else x[:, :0]
                both = torch.cat([x.double(), y.to(x.device).double()], dim=1)
                if name not in sums:
                    sums[name] = empty_sums(both.shape[1], device=both.device), x.shape[1]
                add_rows(sums[name][0], both)
    if not sums:
        raise ValueError("Expected `batches` with at least one batch that reaches a layer, got none.")
    joint_moments = {name: (from_sums(kept), features) for name, (kept, features) in sums.items()}
    return {
        name: OutputMoments(moments.mean[:features], split_moments(moments, x_features=features))
        for name, (moments, features) in joint_moments.items()
    }


def _rows(
    batches: Batches, model: nn.Module, batch: Any, home: torch.device, layers: Sequence[str]
) -> tuple[dict[str, Tensor], Any]:
    found: dict[str, list[Tensor]] = {}

    def record(name: str, rows: Tensor) -> None:
        found.setdefault(name, []).append(rows)

    with capture(model, record, layers=layers, pooling="positions"):
        answer = batches.run(model, batch, home)
    return {name: torch.cat(rows) for name, rows in found.items()}, answer


def _other(name: str, x: Tensor, other: dict[str, Tensor] | None, answer: Any) -> Tensor:
    if other is not None:
        if name not in other or len(other[name]) != len(x):
            raise ValueError(f"Expected `reference` to put out as many rows as the model in {name!r}.")
        return other[name]
    if not isinstance(answer, Tensor) or answer.ndim < 2 or len(x) % len(answer):
        raise ValueError("Expected a model that puts out a tensor (samples, …) to correlate with; give a `reference`.")
    return answer.flatten(1).repeat_interleave(len(x) // len(answer), dim=0)
