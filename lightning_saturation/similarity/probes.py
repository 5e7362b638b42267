"""Rows of the same samples at two times, compared."""

from __future__ import annotations

from collections.abc import Generator, Mapping

import torch
from torch import Tensor

from lightning_saturation.covariance.ranks import LOCAL
from lightning_saturation.similarity.comparison import Comparison
from lightning_saturation.similarity.matrix import SimilarityMatrix
from lightning_saturation.similarity.views import Method, Outputs


def compare_rows(
    left: Mapping[str, Tensor], right: Mapping[str, Tensor], *, method: Method, delta: float | None
) -> SimilarityMatrix:
    """Return the similarity of every layer in ``left`` with every layer in ``right``, rows of the same samples."""
    finite = torch.stack([rows.isfinite().all(1) for rows in (*left.values(), *right.values())]).all(0)
    batch: list[Outputs] = [{name: rows[finite] for name, rows in side.items()} for side in (left, right)]

    def passes() -> Generator[list[Outputs]]:
        yield batch

    return Comparison(method=method, delta=delta, memory=2**62, group=LOCAL).matrix(passes)


def compare_same_layers(
    left: Mapping[str, Tensor], right: Mapping[str, Tensor], *, method: Method, delta: float | None
) -> dict[str, float]:
    """Return the similarity of every layer with itself at another time."""
    return {
        name: compare_rows({name: rows}, {name: right[name]}, method=method, delta=delta)[name, name]
        for name, rows in left.items()
        if name in right
    }
