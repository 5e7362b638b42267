"""Arguments that several callbacks take, checked for type and range."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from numbers import Integral, Real
from textwrap import shorten
from typing import Any

STAGES = ("train", "val", "test")


def check_count(argument: str, value: Any, *, least: int = 1, optional: bool = False) -> Any:
    """Return ``value`` if it is a whole number of at least ``least`` (or None, where that is ``optional``).

    Raises ``TypeError`` for what is no whole number, ``True`` among it, and ``ValueError`` for one that is too small.
    """
    if optional and value is None:
        return None
    more = " or None" if optional else ""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"Expected `{argument}` to be a whole number of at least {least}{more}, got {value!r}.")
    if int(value) < least:
        raise ValueError(f"Expected `{argument}` of at least {least}{more}, got {value}.")
    return int(value)


def check_share(argument: str, value: Any, *, zero: bool = False, one: bool = True) -> float:
    """Return ``value`` if it is a number between 0 and 1; ``zero`` and ``one`` say whether these two are allowed.

    Raises ``TypeError`` for what is no number and ``ValueError`` for one out of range.
    """
    span = f"{'[' if zero else '('}0, 1{']' if one else ')'}"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"Expected `{argument}` to be a number in {span}, got {value!r}.")
    number = float(value)
    if not (0 < number < 1 or (zero and number == 0) or (one and number == 1)):
        raise ValueError(f"Expected `{argument}` in {span}, got {value}.")
    return number


def check_shares(argument: str, values: Any) -> tuple[float, ...]:
    """Return ``values`` as numbers in [0, 1]; raises ``TypeError`` or ``ValueError`` for anything else."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"Expected `{argument}` to hold numbers in [0, 1], got {values!r}.")
    return tuple(check_share(argument, value, zero=True) for value in values)


def check_flag(argument: str, value: Any) -> bool:
    """Return ``value`` if it is True or False; raises ``TypeError`` for anything else."""
    if not isinstance(value, bool):
        raise TypeError(f"Expected `{argument}` to be True or False, got {value!r}.")
    return value


def check_choice(argument: str, value: Any, choices: tuple[Any, ...]) -> Any:
    """Return the one of ``choices`` that ``value`` is; raises ``ValueError`` for anything else."""
    for known in choices:
        if isinstance(value, type(known)) and value == known:
            return known
    raise ValueError(f"Expected `{argument}` to be one of {choices}, got {value!r}.")


def check_patterns(argument: str, value: Any, *, optional: bool = True) -> Any:
    """Return ``value`` if it is a name or glob, several of them, or None; raises ``TypeError`` or ``ValueError``."""
    if optional and value is None:
        return None
    listed = [value] if isinstance(value, str) else list(value) if isinstance(value, Iterable) else [None]
    if not all(isinstance(pattern, str) for pattern in listed):
        got = shorten(repr(value), 80, placeholder=" …")  # a whole model, perhaps
        raise TypeError(f"Expected `{argument}` to hold names or globs of modules, got {got}.")
    if "" in listed:
        raise ValueError(f"Expected `{argument}` to hold names or globs of modules, got an empty one: {value!r}.")
    return value


def check_stages(stages: Any) -> tuple[str, ...]:
    """Return ``stages`` as a tuple of ``"train"``, ``"val"`` and ``"test"``; raises ``ValueError`` for others."""
    listed = (stages,) if isinstance(stages, str) else tuple(stages) if isinstance(stages, Iterable) else ()
    if not listed or any(stage not in STAGES for stage in listed):
        raise ValueError(f"Expected `stages` to hold some of {STAGES}, got {stages!r}.")
    return listed


def check_name(name: Any, argument: str = "name") -> str:
    """Return ``name`` if metric keys and files can begin with it; raises ``TypeError`` or ``ValueError``."""
    if not isinstance(name, str):
        raise TypeError(f"Expected a `{argument}` to begin the metric keys with, got {name!r}.")
    if not re.fullmatch(r"\w[\w .-]*", name):
        raise ValueError(
            f"Expected a `{argument}` to begin the metric keys with, of letters, digits, spaces and '_', '-' or '.',"
            f" got {name!r}."
        )
    return name


def check_folder(argument: str, folder: Any) -> Any:
    """Return ``folder`` if it can be a path, or is None; raises ``TypeError`` or ``ValueError`` for anything else."""
    if folder is not None and not isinstance(folder, str | os.PathLike):
        raise TypeError(f"Expected `{argument}` to be a folder's path or None, got {folder!r}.")
    if folder is not None and "\0" in os.fspath(folder):
        raise ValueError(f"Expected `{argument}` to be a folder's path or None, got {folder!r}.")
    return folder
