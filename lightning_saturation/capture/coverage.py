"""How much of a network the layers that were seen are."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from torch import nn

from lightning_saturation.capture.kinds import is_weight, kind_of
from lightning_saturation.capture.select import offered_modules

ENOUGH = 0.9
"""The share of a network's weights below which a user is told what is missing."""


def coverage(model: nn.Module, layers: Collection[str]) -> float | None:
    """Return the share of the weights of ``model`` that the ``layers``, by name, hold; None where there are none.

    Weights are parameters of two or more dimensions. Embeddings, which are looked up rather than computed, count where
    they are among ``layers`` only.
    """
    seen = {id(p): p.numel() for name, m in offered_modules(model) if name in layers for p in _weights(m)}
    looked_up = {id(p) for m in model.modules() if _is_opt_in(m) for p in m.parameters()} - set(seen)
    every = {id(p): p.numel() for p in _weights(model) if id(p) not in looked_up}
    return sum(seen.values()) / sum(every.values()) if every else None


def unknown_layers(model: nn.Module) -> dict[str, float]:
    """Return the share of the weights of ``model`` in modules of no known kind, by their type, most first."""
    known = {id(p) for _, m in offered_modules(model) if kind_of(m) is not None for p in m.parameters()}
    total = sum(p.numel() for p in _weights(model))
    shares: dict[str, float] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if is_weight(parameter) and id(parameter) not in known and not nn.parameter.is_lazy(parameter):
                name = type(module).__name__
                shares[name] = shares.get(name, 0.0) + parameter.numel() / total
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def _weights(module: nn.Module) -> Iterator[nn.Parameter]:
    return (p for p in module.parameters() if is_weight(p) and not nn.parameter.is_lazy(p))


def _is_opt_in(module: nn.Module) -> bool:
    kind = kind_of(module)
    return kind is not None and not kind.by_default
