"""Which of the layers that ran are output layers."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase


def check_output_layers(
    names: Sequence[str], output_layers: Sequence[str] | None, *, argument: str = "output_layers"
) -> None:
    """Raise a ``ValueError`` where a name or glob in ``output_layers`` matches none of the tracked ``names``."""
    for pattern in _listed(output_layers or ()):
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(f"Expected `{argument}` to name tracked layers, among {list(names)}, got {pattern!r}.")


def choose_output_layers(
    ran: Sequence[str], output_layers: Sequence[str] | None, found: Sequence[str] | None = None
) -> tuple[str, ...]:
    """Return which of the layers that ``ran``, in that order, are left out of the average.

    With None these are the ones ``found`` to feed no other layer or, where nobody looked, the last one; none where no
    layer would be left.
    """
    if output_layers is None:
        ends = tuple(ran[-1:]) if found is None else tuple(name for name in ran if name in found)
        return ends if len(ends) < len(ran) else ()
    return tuple(name for name in ran if any(fnmatchcase(name, pattern) for pattern in _listed(output_layers)))


def _listed(patterns: Sequence[str]) -> Sequence[str]:
    return [patterns] if isinstance(patterns, str) else patterns
