"""Arguments that several callbacks take, checked for type and range."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

STAGES = ("train", "val", "test")


def check_count(argument: str, value: Any, *, least: int = 1, optional: bool = False) -> Any:
    """Return ``value`` if it is a whole number of at least ``least`` (or None, where that is ``optional``).

    Raises ``TypeError`` for what is no whole number, ``True`` among it, and ``ValueError`` for one that is too small.
    """
    if optional and value is None:
        return None
    more = " or None" if optional else ""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"Expected `{argument}` to be a whole number of at least {least}{more}, got {value!r}.")
    if value < least:
        raise ValueError(f"Expected `{argument}` of at least {least}{more}, got {value}.")
    return value


def check_share(argument: str, value: Any, *, zero: bool = False, one: bool = True) -> float:
    """Return ``value`` if it is a number between 0 and 1; ``zero`` and ``one`` say whether these two are allowed.

    Raises ``TypeError`` for what is no number and ``ValueError`` for one out of range.
    """
    span = f"{'[' if zero else '('}0, 1{']' if one else ')'}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"Expected `{argument}` to be a number in {span}, got {value!r}.")
    if not (0 < value < 1 or (zero and value == 0) or (one and value == 1)):
        raise ValueError(f"Expected `{argument}` in {span}, got {value}.")
    return float(value)


def check_stages(stages: Any) -> tuple[str, ...]:
    """Return ``stages`` as a tuple of ``"train"``, ``"val"`` and ``"test"``; raises ``ValueError`` for others."""
    listed = (stages,) if isinstance(stages, str) else tuple(stages) if isinstance(stages, Sequence | set) else ()
    if not listed or not set(listed) <= set(STAGES):
        raise ValueError(f"Expected `stages` to hold some of {STAGES}, got {stages!r}.")
    return listed


def check_name(name: Any) -> str:
    """Return ``name`` if metric keys and files can begin with it; raises ``TypeError`` or ``ValueError``."""
    if not isinstance(name, str):
        raise TypeError(f"Expected a `name` to begin the metric keys with, got {name!r}.")
    if not re.fullmatch(r"\w[\w .-]*", name):
        raise ValueError(
            "Expected a `name` to begin the metric keys with, of letters, digits, spaces and '_', '-' or '.',"
            f" got {name!r}."
        )
    return name


def check_folder(argument: str, folder: Any) -> Any:
    """Return ``folder`` if it is a path or None; raises ``TypeError`` for anything else."""
    if folder is not None and not isinstance(folder, str | os.PathLike):
        raise TypeError(f"Expected `{argument}` to be a folder's path or None, got {folder!r}.")
    return folder
