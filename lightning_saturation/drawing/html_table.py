"""A table as a notebook shows it, with a bar where a number is a share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

_BAR = 90
"""Pixels of a bar that is full."""


def html_table(
    title: str,
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    bars: Mapping[int, Sequence[float]] | None = None,
    sentences: Sequence[str] = (),
) -> str:
    """Return a table of ``rows`` between ``title`` and ``sentences``, with numbers flush right.

    ``bars`` holds, by column, how full the bar before each of its cells is, in [0, 1]; NaN for none. Colours of text
    and ground are the page's own, so that dark pages stay readable.
    """
    bars = bars or {}
    ends = (0, len(head) - 1)
    lines = ["".join(_cell("th", text, left=column in ends) for column, text in enumerate(head))]
    for number, row in enumerate(rows):
        cells = [
            _cell("td", text, left=column in ends, bar=bars[column][number] if column in bars else math.nan)
            for column, text in enumerate(row)
        ]
        lines.append("".join(cells))
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    scrolls = "max-height:36em;overflow:auto"
    said = "".join(f"<div>{escape(sentence)}</div>" for sentence in sentences)
    return f'<div style="{scrolls}"><b>{escape(title)}</b><table style="margin:0.4em 0">{body}</table>{said}</div>'


def html_list(title: str, items: Sequence[Sequence[str]]) -> str:
    """Return ``title`` and under it a list, the first line of each item upright and the others behind it small."""
    points = []
    for first, *others in items:
        small = "".join(f'<div style="font-size:smaller;opacity:0.8">{escape(other)}</div>' for other in others)
        points.append(f"<li>{escape(first)}{small}</li>")
    return f'<div><b>{escape(title)}</b><ul style="margin:0.4em 0">{"".join(points)}</ul></div>'


def _cell(tag: str, text: str, *, left: bool, bar: float = math.nan) -> str:
    drawn = ""
    if not math.isnan(bar):
        size = f"width:{_BAR * min(max(bar, 0.0), 1.0):.0f}px;height:0.7em"
        full = f"display:inline-block;width:{_BAR}px;margin-right:0.5em;background:#8884;text-align:left"
        drawn = f'<span style="{full}"><span style="display:inline-block;{size};background:#5b8fc7"></span></span>'
    style = f"text-align:{'left' if left else 'right'};white-space:nowrap;padding:0.1em 0.6em"
    return f'<{tag} style="{style}">{drawn}{escape(text)}</{tag}>'
