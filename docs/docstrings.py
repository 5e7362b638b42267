"""Docstrings as Markdown: roles become links or code, doctests become blocks of code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from griffe import Extension, Object

_ROLE = re.compile(r":(?:class|func|attr):`~?([\w.]+)`")
_DOCTEST = re.compile(r"^>>> .*(?:\n\S.*)*", re.MULTILINE)
_LISTED = re.compile(r"^::: (\S+)$", re.MULTILINE)


class Docstrings(Extension):
    """Rewrites every docstring before it is rendered; links lead to what the API page lists."""

    def __init__(self) -> None:
        listed = _LISTED.findall(Path(__file__).with_name("api.md").read_text())
        self._pages = {path.rpartition(".")[2]: path for path in listed}

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite the docstring of ``obj``."""
        if obj.docstring:
            fenced = _DOCTEST.sub(r"```pycon\n\g<0>\n```", obj.docstring.value)
            obj.docstring.value = _ROLE.sub(self._link, fenced)

    def _link(self, role: re.Match[str]) -> str:
        name = role[1].rpartition(".")[2]
        return f"[`{name}`][{self._pages[name]}]" if name in self._pages else f"`{name}`"
