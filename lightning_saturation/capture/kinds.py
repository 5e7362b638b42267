"""The kinds of layers that are known: how wide they are, and where their outputs hold features and samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import nn

from lightning_saturation.capture.pooling import Layout

Width = str | Callable[[nn.Module], int] | None


class Kind(NamedTuple):
    """What is known of the outputs of a type of layers.

    ``width`` is the attribute that holds the number of features, or a function of the layer; None where the output
    alone tells. ``features_dim`` is the dimension of the features, and ``unbatched`` the number of dimensions at which
    an output is one sample without a sample dimension. ``asks`` says that the layer's own ``batch_first`` tells where
    the samples are, ``by_default`` that it is tracked without being named.
    """

    width: Width = None
    features_dim: int = -1
    unbatched: int = 1
    asks: bool = False
    by_default: bool = True

    def layout(self, module: nn.Module, dimensions: int) -> Layout:
        """Return the layout of the output of ``module`` when it has so many ``dimensions``."""
        features = self.features_dim - dimensions if self.features_dim >= 0 else self.features_dim
        return Layout(features, 1 if self.asks and not module.batch_first else 0, self.unbatched)

    def width_of(self, module: nn.Module) -> int | None:
        """Return the number of features that ``module`` says it puts out, or None where it does not say."""
        if self.width is None:
            return None
        said = getattr(module, self.width) if isinstance(self.width, str) else self.width(module)
        return int(said)


_OUT = Kind("out_features")
_LINE, _PLANE, _SPACE = (Kind("out_channels", features_dim=-n - 1, unbatched=n + 1) for n in (1, 2, 3))
_LOOKUP = Kind("embedding_dim", by_default=False)
_CELL = Kind("hidden_size")
_SEQUENCE = Kind(unbatched=2, asks=True)

KINDS: dict[type[nn.Module], Kind] = {
    nn.Linear: _OUT,
    nn.Bilinear: _OUT,
    nn.Conv1d: _LINE,
    nn.ConvTranspose1d: _LINE,
    nn.Conv2d: _PLANE,
    nn.ConvTranspose2d: _PLANE,
    nn.Conv3d: _SPACE,
    nn.ConvTranspose3d: _SPACE,
    nn.RNNBase: _SEQUENCE,
    nn.MultiheadAttention: _SEQUENCE,
    nn.RNNCell: _CELL,
    nn.LSTMCell: _CELL,
    nn.GRUCell: _CELL,
    nn.Embedding: _LOOKUP,
    nn.EmbeddingBag: _LOOKUP,
    **{
        getattr(nn, f"{name}{n}d"): Kind(features_dim=-n - 1, unbatched=n + 1, by_default=False)
        for name in ("MaxPool", "AvgPool", "AdaptiveMaxPool", "AdaptiveAvgPool")
        for n in (1, 2, 3)
    },
}
"""Kinds by type; a subclass without an entry is of its base's kind."""

_GRAPH_CONVOLUTION = ("torch_geometric", "MessagePassing")

NAMED: dict[tuple[str, str], Kind] = {
    ("transformers", "Conv1D"): Kind("nf"),  # a linear layer whose weight is transposed
    ("transformers", "XLNetRelativeAttention"): Kind("d_model"),  # its projections are parameters of its own
    ("torch_geometric", "Linear"): Kind("out_channels"),
    ("torch_geometric", "HeteroLinear"): Kind("out_channels"),
    _GRAPH_CONVOLUTION: Kind(),
}
"""Kinds by package and name of the type, of packages that are never imported here."""

_PART_OF_EXPERTS = Kind()


def register_layer(kind: type[nn.Module], *, width: Width = None, features_dim: int = -1) -> None:
    """Track layers of type ``kind``, and of its subclasses, from now on and in every instrument.

    ``width`` is the attribute with their number of features or a function of the layer; None takes it from what they
    put out. ``features_dim`` is the dimension of that output, or of the first one in a tuple, that holds the features:
    ``-1`` for (samples, …, features), ``1`` for (samples, channels, …). A type that is known already is known anew.

    Raises ``TypeError`` for what is no type of modules, and ``ValueError`` for a ``features_dim`` of 0, the samples.

    >>> from lightning_saturation import select_layers
    >>> class Scale(nn.Module):
    ...     def forward(self, x):
    ...         return 2 * x
    >>> register_layer(Scale, features_dim=1)
    >>> list(select_layers(nn.Sequential(Scale())))
    ['0']
    """
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise TypeError(f"Expected `kind` to be a type of modules, got {kind!r}.")
    if not (width is None or isinstance(width, str) or callable(width)):
        raise TypeError(f"Expected `width` to be the name of an attribute, a function or None, got {width!r}.")
    if isinstance(features_dim, bool) or not isinstance(features_dim, int):
        raise TypeError(f"Expected `features_dim` to be a dimension, got {features_dim!r}.")
    if features_dim == 0:
        raise ValueError("Expected `features_dim` other than 0, which holds the samples.")
    KINDS[kind] = Kind(width, features_dim)


def kind_of(module: nn.Module) -> Kind | None:
    """Return what is known of ``module``, by the nearest of its types; None where nothing is."""
    for base in type(module).__mro__:
        if base in KINDS:
            return KINDS[base]
        if (named := _name(base)) in NAMED:
            return NAMED[named] if named != _GRAPH_CONVOLUTION or _holds_weights(module) else None
    return _PART_OF_EXPERTS if _is_part_of_experts(module) else None


def holds_its_layers(module: nn.Module) -> bool:
    """Return whether the layers below ``module`` are parts of it, as the projections of an attention are.

    Hooks on those of a multi-head attention never fire, and those of a graph convolution put out what has not yet been
    sent along the edges.
    """
    if isinstance(module, nn.MultiheadAttention):
        return True
    return any(_name(base) == _GRAPH_CONVOLUTION for base in type(module).__mro__) and _holds_weights(module)


def _name(base: type) -> tuple[str, str]:
    return base.__module__.partition(".")[0], base.__name__


def _holds_weights(convolution: nn.Module) -> bool:
    """Return whether the weights of a graph ``convolution`` are its own, not a given network's, as GIN's."""
    given = (base in KINDS for part in convolution.modules() for base in type(part).__mro__)
    return not any(given) and any(is_weight(parameter) for parameter in convolution.parameters())


def is_weight(parameter: nn.Parameter) -> bool:
    """Return whether ``parameter`` has, or will have, two or more dimensions."""
    return isinstance(parameter, nn.UninitializedParameter) or parameter.ndim > 1


def _is_part_of_experts(module: nn.Module) -> bool:
    """Return whether ``module`` holds the experts of a mixture side by side, or chooses among them.

    Every library has types of its own for them, of much the same names; both put out (tokens, features).
    """
    own = dict(module.named_parameters(recurse=False))
    name = type(module).__name__
    side_by_side = name.endswith("Experts") and any(parameter.ndim == 3 for parameter in own.values())
    return side_by_side or (name.endswith("Router") and "weight" in own and own["weight"].ndim == 2)
