"""What a layer put out, as rows; gathered where its features are spread over a tensor-parallel mesh."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, unpack_sequence

from lightning_saturation.capture.masks import fits, pool_masked
from lightning_saturation.capture.pooling import Layout, Pooling, pool, positions_view
from lightning_saturation.capture.samples import Axis

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
        if pooling is None:
            return output[0]
        return torch.cat([pool(sequence, layout=Layout(unbatched=2), pooling=pooling) for sequence in output])
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


def gather_features(module: nn.Module, output: Tensor, *, dim: int, features: int) -> Tensor | None:
    """Return the whole of an ``output`` of which this rank holds a slice along ``dim``, or None where it cannot be had.

    The slices are those of ``module``'s weight, which tensor parallelism has cut along its outputs; what is gathered is
    ``features`` wide, the same on all ranks of that mesh. A collective call among them: they run the same layers in the
    same order.
    """
    group = _feature_group(module, output.shape[dim], features)
    if group is None:
        return None
    # Slices may differ by one where the width does not divide evenly; the mesh cuts it like `torch.chunk`.
    widths = [len(chunk) for chunk in torch.chunk(torch.empty(features), dist.get_world_size(group))]
    if sum(widths) != features or widths[dist.get_rank(group)] != output.shape[dim]:
        return None
    own = output.new_zeros(widths[0], *output.movedim(dim, 0).shape[1:])  # the first slice is the widest
    own[: output.shape[dim]] = output.movedim(dim, 0)
    slices = [torch.empty_like(own) for _ in widths]
    dist.all_gather(slices, own, group=group)
    return torch.cat([part[:width] for part, width in zip(slices, widths, strict=True)]).movedim(0, dim)


def _feature_group(module: nn.Module, width: int, features: int) -> Any:
    """Return the process group over which the outputs of ``module`` are cut, or None."""
    weight = getattr(module, "weight", None)
    mesh, placements = getattr(weight, "device_mesh", None), getattr(weight, "placements", ())
    if mesh is None:
        return None
    for dimension, placement in enumerate(placements):
        # Linear and convolution weights have their outputs first. FSDP cuts there too, but gathers before the forward.
        if placement.is_shard(0) and -(-features // mesh.size(dimension)) >= width:
            return mesh.get_group(dimension)
    return None
