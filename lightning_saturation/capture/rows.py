"""What a layer put out, as rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, unpack_sequence

from lightning_saturation.capture.masks import fits, pool_masked
from lightning_saturation.capture.pooling import Layout, Pooling, pool, pool_ragged, positions_view
from lightning_saturation.capture.samples import Axis
from lightning_saturation.capture.sharded import gather_features

# This is compiled too, and torch 2.5 compiles no `isinstance` of a union: tuples here.


def output_of(module: nn.Module, output: Any, pooling: Pooling | None) -> Tensor | list[Tensor]:
    """Return the tensor that ``module`` put out, detached, or a list of one tensor (positions, features) per sample.

    Raises ``TypeError`` for what is no tensor.
    """
    while isinstance(output, (tuple, list)) and not isinstance(output, PackedSequence):
        output = output[0]  # LSTM, GRU, multi-head attention: the features come first
    if isinstance(output, PackedSequence):
        output = output.data if pooling == "positions" or pooling is None else unpack_sequence(output)
    elif not isinstance(output, Tensor):
        raise TypeError(f"Expected a tensor from {type(module).__name__}, got {type(output).__name__}.")
    elif output.is_nested:
        output = list(output.unbind())
    if isinstance(output, list):
        if pooling is None:
            raise TypeError("Expected outputs of one length with `pooling=None`, got sequences of different lengths.")
        return [sequence.detach() for sequence in output]
    whole: Tensor = output.detach()
    return whole


def rows_of(
    module: nn.Module,
    output: Tensor | list[Tensor],
    pooling: Pooling | None,
    layout: Layout,
    *,
    width: int | None = None,
    views: bool = False,
) -> Tensor | None:
    """Return the rows of ``output``, or None where it is only a shard of the ``width`` that ``module`` says it has."""
    if isinstance(output, list):
        return output[0] if pooling is None else pool_ragged(output, pooling=pooling)
    if width is not None and output.shape[layout.features] != width:
        if torch.compiler.is_compiling():
            return None
        whole = gather_features(module, output, dim=output.ndim + layout.features, features=width)
        if whole is None:
            return None
        output = whole
    if pooling is None:
        return output
    if views and pooling == "positions":
        return positions_view(output, layout=layout)
    return pool(output, layout=layout, pooling=pooling)


def masked_rows(
    output: Tensor, pooling: Pooling, layout: Layout, mask: Tensor, *, axis: Axis | None = None
) -> Tensor | None:
    """Return the rows of ``output`` at the positions that ``mask`` holds True for, or None where it is not about them.

    It is about an output (samples, positions, features) of the mask's sizes, wherever these are, and about one
    (samples × positions, features), where ``axis`` says which of both comes first; by default the samples do.
    """
    mask = mask.to(output.device)
    features = output.ndim + layout.features
    inner = [size for dim, size in enumerate(output.shape) if dim not in (layout.batch, features)]
    if output.ndim > layout.unbatched and fits(mask, output.shape[layout.batch], inner):
        return pool_masked(output.movedim((layout.batch, features), (0, 2)), mask, pooling)
    if output.ndim == 2 and features == 1 and len(output) == mask.numel() and mask.shape[1] > 1:
        second = axis is not None and axis.inner == 1 and axis.samples == mask.shape[0] and len(mask) > 1
        return output[(mask.T if second else mask).flatten()]
    return None
