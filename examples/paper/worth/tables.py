"""Tables in Markdown, and the places between marks where they go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path


def table(rows: Sequence[Sequence[str]], head: Sequence[str]) -> str:
    """Return ``rows`` as a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def write(page: Path, texts: Mapping[str, str]) -> None:
    """Put each text between ``<!-- name -->`` and ``<!-- end of name -->``; ValueError where a page lacks the marks."""
    text = page.read_text(encoding="utf-8")
    for name, inside in texts.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        head, mark, rest = text.partition(begin)
        _, closing, tail = rest.partition(end)
        if not mark or not closing:
            raise ValueError(f"Expected the marks of {name!r} in {page.name}.")
        text = f"{head}{begin}\n{inside}\n\n{end}{tail}"
    page.write_text(text, encoding="utf-8")
