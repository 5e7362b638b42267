"""The keys under which values are logged."""

from __future__ import annotations


def layer_key(layer: str) -> str:
    """Return the end of the key of ``layer``: charts are grouped by what comes before the last slash.

    >>> layer_key("body/first")
    'layers/body_first'
    """
    return f"layers/{layer.replace('/', '_')}"
