"""Plain numbers out of dataclasses, for tables and data frames."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

_SCALARS = ("bool", "int", "float", "str")


def columns(kind: type) -> list[str]:
    """Return the names of the fields of the dataclass ``kind`` that hold a number or a text."""
    return [field.name for field in fields(kind) if getattr(field.type, "__name__", field.type) in _SCALARS]


def record(item: Any) -> dict[str, Any]:
    """Return the numbers and texts in the dataclass ``item`` by name; None where a number is missing."""
    return {name: plain(getattr(item, name)) for name in columns(type(item))}


def plain(value: Any) -> Any:
    """Return ``value``, None for NaN."""
    return None if isinstance(value, float) and math.isnan(value) else value
