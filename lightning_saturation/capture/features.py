"""Which dimension of an output holds the features, where its module is of no known kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import nn

_SAID_BY = ("out_features", "out_channels", "num_features", "num_channels", "embedding_dim", "normalized_shape")

_BY_CHANNEL = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.GroupNorm),
)


class Neighbour(NamedTuple):
    """The output of the layer of a known kind that ran last: its ``shape`` and the dimension of its ``features``."""

    shape: tuple[int, ...]
    features: int


def features_dim(module: nn.Module, shape: Sequence[int], neighbour: Neighbour | None = None) -> int:
    """Return the dimension, counted from the end, that holds the features in an output of ``module`` of this ``shape``.

    It is the one as wide as the module says (``num_features``, ``normalized_shape``, …) or, where it says nothing, as
    its ``neighbour``'s features are. Of several of that width it is the one that torch's norms use, or the one of a
    neighbour's output of the same shape. An output of two dimensions is (samples, features).

    Raises ``ValueError`` where it stays ambiguous.
    """
    if len(shape) < 3:
        return -1
    width = _said_width(module)
    if width is None and neighbour is not None:
        if neighbour.shape == tuple(shape):
            return neighbour.features
        width = neighbour.shape[neighbour.features]
    fitting = [dim - len(shape) for dim in range(1, len(shape)) if shape[dim] == width]
    if len(fitting) > 1 and isinstance(module, nn.LayerNorm | nn.RMSNorm):
        return -1
    if len(fitting) > 1 and isinstance(module, _BY_CHANNEL):
        return 1 - len(shape)
    if len(fitting) != 1:
        name = type(module).__name__
        raise ValueError(
            f"Expected to know which dimension of an output of shape {tuple(shape)} of {name} holds the features, but"
            f" {'none' if not fitting else len(fitting)} of them fit; say so with `register_layer({name},"
            " features_dim=…)`."
        )
    return fitting[0]


def _said_width(module: nn.Module) -> int | None:
    for attribute in _SAID_BY:
        said = getattr(module, attribute, None)
        if isinstance(said, int) and not isinstance(said, bool):
            return said
        if attribute == "normalized_shape" and isinstance(said, tuple | list) and len(said) == 1:
            return int(said[0])
    return None
