"""Every layer of one network against every layer of another."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, get_args

import torch
from torch import nn

from lightning_saturation.arguments import check_choice
from lightning_saturation.capture.evaluation import Batches, Forward
from lightning_saturation.capture.masks import Mask, check_mask
from lightning_saturation.capture.pooling import Pooling, check_pooling
from lightning_saturation.capture.select import CaptureOptions
from lightning_saturation.covariance.ranks import LOCAL, together
from lightning_saturation.covariance.spectrum import check_delta
from lightning_saturation.similarity.comparison import Comparison
from lightning_saturation.similarity.report import SimilarityMatrix
from lightning_saturation.similarity.views import Method, Outputs, outputs_of

DEFAULT_DELTA = {"svcca": 0.99}


def compare_representations(
    model_a: nn.Module,
    model_b: nn.Module,
    batches: Iterable[Any],
    *,
    method: Method = "svcca",
    layers: Sequence[str] | None = None,
    other_layers: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    pooling: Pooling = "mean",
    delta: float | None = None,
    resize: bool = False,
    memory: int = 2**31,
    max_batches: int | None = None,
    device: torch.device | str | None = None,
    progress: bool = True,
    process_group: Any = None,
    mask: Mask = None,
    forward: Forward | None = None,
) -> SimilarityMatrix:
    """Return the similarity of every layer of ``model_a`` (rows) with every layer of ``model_b`` (columns).

    The models may be two networks, two checkpoints of one, or one network and itself, which then runs once. Both run on
    every batch in evaluation mode, side by side: batches are those of :func:`measure_saturation`. No activation
    is kept beyond its batch, only sums of products; as many pairs of layers are summed in one pass over ``batches`` as
    fit into ``memory`` bytes, usually all, and more passes are made where they do not.

    Args:
        model_a: gives the rows.
        model_b: gives the columns.
        batches: inputs; anything that can be iterated over, more than once where ``memory`` needs several passes.
        method: ``"svcca"``, ``"pwcca"`` (mean of both sides), ``"cka"``, ``"debiased_cka"``, ``"procrustes"`` (the
            normalised squared distance), or ``"dft_cca"`` for maps, frequency by frequency.
        layers: names or globs of layers of both models, None for all; see :func:`select_layers`.
        other_layers: those of ``model_b``, where they differ.
        exclude: names or globs to leave out of both.
        pooling: how outputs become rows. With ``"positions"`` every pixel or token of both maps is a sample, as suits
            two versions of one layer; ``method="dft_cca"`` takes whole maps and does not pool.
        delta: share of variance to keep; None is 0.99 for SVCCA, everything otherwise.
        resize: cut maps of different size down to their common low frequencies ("positions" and DFT-CCA only; 1×1
            where one side is a linear layer). Without it they are an error.
        memory: bytes that the sums may take at a time.
        max_batches: batches to use, None for all.
        device: where to run, None for where each model is.
        progress: whether to show a bar.
        process_group: ranks to sum over, each with its own batches; they also share the decompositions. A collective
            call then.
        mask: which positions are no padding, as in :class:`SaturationMonitor`; only where outputs are pooled.
        forward: ``forward(model, batch)`` for models that take more than one tensor.

    Raises:
        ValueError: for unknown layers, methods or poolings, numbers of rows that change among batches, maps of
            different size without ``resize``, no batch, or an iterator where several passes are needed.

    Source: Raghu et al., *SVCCA*, sections 3 and 4, figures 4 and 7.

    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> matrix = compare_representations(model, model, torch.randn(10, 32, 4), progress=False)
    >>> matrix.rows, round(matrix["2", "2"], 6)
    (('0', '2'), 1.0)
    """
    check_choice("method", method, get_args(Method))
    pooling = check_pooling(pooling)
    delta = DEFAULT_DELTA.get(method) if delta is None else check_delta(delta)
    as_maps = method == "dft_cca" or pooling == "positions"
    check_mask(mask, "flatten" if as_maps else pooling)
    models = [model_a] if model_a is model_b and other_layers is None else [model_a, model_b]
    options = CaptureOptions(layers, exclude, None if as_maps else pooling, mask)
    others = options if other_layers is None else replace(options, layers=other_layers)
    data = Batches(batches, max_batches, device, forward, bar="similarity" if progress else None)

    def passes() -> Generator[list[Outputs]]:
        return outputs_of(models, [options, others][: len(models)], data)

    group = LOCAL if process_group is None else process_group
    comparison = Comparison(method=method, delta=delta, resize=resize, memory=memory, group=group)
    with together(group):
        return comparison.matrix(passes, repeatable=not isinstance(batches, Iterator))
