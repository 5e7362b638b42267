"""What a callback was told, as plain data for a run's configuration."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch

MOST_ITEMS = 100
"""Longer lists are data rather than arguments, and only their type is told."""


def configuration(callback: object, *parts: object) -> dict[str, Any]:
    """Return the arguments of ``callback`` by name, as plain data, where it or one of ``parts`` keeps them.

    Runs that were measured in different ways must not look as if they could be compared.
    """
    found = {}
    for name in inspect.signature(type(callback).__init__).parameters:
        for holder in (callback, *parts):
            if hasattr(holder, name):
                found[name] = _plain(getattr(holder, name))
                break
    return found


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple) and len(value) <= MOST_ITEMS:
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, torch.device) else getattr(value, "__qualname__", type(value).__name__)
