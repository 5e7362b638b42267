"""Layer names that fit a picture."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile


def short_names(names: Sequence[str], *, most: int = 22) -> list[str]:
    """Return ``names`` without the modules that all share, and at most ``most`` letters of each where that tells all.

    >>> short_names(["model.net.conv1", "model.net.conv2"])
    ['conv1', 'conv2']
    >>> short_names(["fc"])
    ['fc']
    """
    parts = [name.split(".") for name in names]
    shared = len(list(takewhile(lambda column: len(set(column)) == 1, zip(*(p[:-1] for p in parts), strict=False))))
    bare = [".".join(p[shared:]) for p in parts]
    cut = [name if len(name) <= most else f"…{name[1 - most :]}" for name in bare]
    return cut if len(set(cut)) == len(cut) else bare
