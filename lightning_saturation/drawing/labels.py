"""Layer names that fit a picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import takewhile


def shared_parts(names: Iterable[str]) -> int:
    """Return how many modules, parts of their names but the last, all ``names`` begin with."""
    modules = zip(*(name.split(".")[:-1] for name in names), strict=False)
    return len(list(takewhile(lambda column: len(set(column)) == 1, modules)))


def short_names(names: Sequence[str], *, most: int = 22) -> list[str]:
    """Return ``names`` without the modules that all share, and at most ``most`` letters of each where that tells all.

    >>> short_names(["model.net.conv1", "model.net.conv2"])
    ['conv1', 'conv2']
    >>> short_names(["fc"])
    ['fc']
    >>> short_names(["model.layers.0.attention.query", "model.layers.1.attention.query", "head"])
    ['…0.attention.query', '…1.attention.query', 'head']
    """
    bare = _without(names, shared_parts(names))
    inner = shared_parts(name for name in bare if len(name) > most)  # a head beside the blocks shares nothing with them
    if inner:
        bare = [name if len(name) <= most else f"…{_without([name], inner)[0]}" for name in bare]
    cut = [name if len(name) <= most else f"…{name[1 - most :]}" for name in bare]
    return cut if len(set(cut)) == len(cut) else bare


def fitting_names(names: Sequence[str], *, most: int = 34) -> list[str]:
    """Return ``names`` as they are where each has at most ``most`` letters, else all as :func:`short_names` has them.

    >>> fitting_names(["net.conv1", "net.conv2"])
    ['net.conv1', 'net.conv2']
    """
    return list(names) if max(map(len, names), default=0) <= most else short_names(names, most=most)


def _without(names: Sequence[str], shared: int) -> list[str]:
    return [".".join(name.split(".")[shared:]) for name in names]
