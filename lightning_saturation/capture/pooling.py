"""A layer's output as rows: the only place that knows layouts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from lightning_saturation.arguments import check_choice

Pooling = Literal["mean", "max", "median", "positions", "flatten", "last"]


class Layout(NamedTuple):
    """Where a layer's output holds what.

    ``features`` is the feature dimension counted from the end, ``batch`` the sample dimension of a batched output, and
    ``unbatched`` the number of dimensions at which an output is one sample without a sample dimension. All others are
    positions (pixels, tokens, time steps).
    """

    features: int = -1
    batch: int = 0
    unbatched: int = 1


def check_pooling(pooling: Any) -> Pooling:
    """Return ``pooling`` if it is one of the known ones, else raise a ``ValueError``."""
    known: Pooling = check_choice("pooling", pooling, get_args(Pooling))
    return known


def pool(output: Tensor, *, layout: Layout = Layout(), pooling: Pooling = "mean") -> Tensor:  # noqa: B008
    """Return the rows (samples, features) of a layer's ``output``.

    - ``"mean"``, ``"max"``, ``"median"`` (the lower one of two): one row per sample, over its positions;
      ``"mean"`` of a convolution is global average pooling, and half-precision outputs are averaged in float32;
    - ``"last"``: the last position of each sample; ``"positions"``: every position is a row;
    - ``"flatten"``: one row per sample of positions × features, which must not vary in number.

    An output without positions gives the same rows under every pooling.

    Source: Shenk et al., *Spectral Analysis of Latent Representations*, section 2.2 and equation 3.

    >>> pool(torch.arange(8.0).view(1, 2, 2, 2), layout=Layout(features=-3, unbatched=3))
    tensor([[1.5000, 5.5000]])
    """
    batch = layout.batch
    if output.ndim <= layout.unbatched:
        output, batch = output.unsqueeze(0), 0
    features = output.ndim + layout.features
    positions = [dim for dim in range(output.ndim) if dim not in (batch, features)]
    if not positions:
        return output
    if pooling == "mean":
        return output.mean(positions, dtype=_mean_type(output))
    if pooling == "max":
        return output.amax(positions)
    if pooling == "last":
        return output[tuple(-1 if dim in positions else slice(None) for dim in range(output.ndim))]
    rows = output.movedim((batch, features), (0, -1)).flatten(1, -2)
    if pooling == "median":
        return rows.median(1).values
    return rows.flatten(0, 1) if pooling == "positions" else rows.flatten(1)


def pooler(output: Tensor, *, layout: Layout, pooling: Pooling, views: bool = False) -> Callable[[Tensor], Tensor]:
    """Return what makes rows of outputs of the shape and type of ``output``, as :func:`pool` does.

    With ``views``, every position's row comes as :func:`positions_view` gives it.
    """
    if pooling == "mean" and output.ndim > max(layout.unbatched, 2):
        positions = [dim for dim in range(output.ndim) if dim not in (layout.batch, output.ndim + layout.features)]
        return partial(torch.mean, dim=positions, dtype=_mean_type(output))
    if pooling == "positions" and views:
        return partial(positions_view, layout=layout)
    return partial(pool, layout=layout, pooling=pooling)


class Usual(NamedTuple):
    """What a layer put out last, of a batch of so many ``samples``, and what makes ``rows`` of all outputs like it.

    They are ``fresh`` where they share no memory with the output.

    Between a layer's outputs much runs that leaves nothing of ours in the processor's caches: there the way of any
    output, a dozen short functions, takes ten times as long as in a loop, which is more than averaging does.
    """

    shape: torch.Size
    dtype: torch.dtype
    samples: int
    rows: Callable[[Tensor], Tensor]
    fresh: bool

    def fits(self, output: Any, samples: int) -> bool:
        """Return whether ``output``, of a batch of so many ``samples``, is like it."""
        plain = type(output) is Tensor and not output.is_nested
        return plain and output.shape == self.shape and output.dtype == self.dtype and samples == self.samples


def _mean_type(output: Tensor) -> torch.dtype | None:
    return torch.float32 if output.dtype in (torch.float16, torch.bfloat16) else None


def positions_view(output: Tensor, *, layout: Layout = Layout()) -> Tensor:  # noqa: B008
    """Return every position of a layer's ``output`` as a view (samples, positions, features), without a copy.

    Rows can be chosen from it before the rest is moved. An output without positions comes as (samples, features).

    >>> positions_view(torch.zeros(2, 5, 3, 4), layout=Layout(features=-3, unbatched=3)).shape
    torch.Size([2, 12, 5])
    """
    batch = layout.batch
    if output.ndim <= layout.unbatched:
        output, batch = output.unsqueeze(0), 0
    if output.ndim == 2:
        return output
    rows = output.movedim((batch, output.ndim + layout.features), (0, -1))
    return rows.flatten(1, -2)
