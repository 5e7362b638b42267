"""Put changed code into functions that are already known everywhere: in test modules, in parameters, in closures."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any


def apply(path: Path, text: bytes, items: Iterable[Any]) -> None:
    """Load ``text`` in place of the loaded module at ``path``: functions keep their identity and change their code.

    Constants are put wherever the old value is known by the same name; ``items`` are tests, whose doctests know some.
    """
    loaded = [module for module in list(sys.modules.values()) if isinstance(module, ModuleType)]
    [old] = [module for module in loaded if getattr(module, "__file__", None) == str(path)]
    new = ModuleType(old.__name__)
    new.__dict__.update(__file__=str(path), __package__=old.__package__)
    kept = sys.modules[old.__name__]
    sys.modules[old.__name__] = new  # a dataclass looks its own module up
    try:
        exec(compile(text, str(path), "exec"), new.__dict__)
    finally:
        sys.modules[old.__name__] = kept
    tables = [vars(module) for module in list(sys.modules.values()) if isinstance(module, ModuleType)]
    tables += [item.dtest.globs for item in items if getattr(item, "dtest", None) is not None]
    for key, value in vars(new).items():
        before = vars(old).get(key)
        if key.startswith("__") or key not in vars(old):
            continue
        if callable(value) or isinstance(value, type):
            if getattr(value, "__module__", None) == old.__name__:
                _change(before, value)
        elif not isinstance(value, ModuleType):
            for table in tables:
                if table.get(key) is before:
                    table[key] = value


def _change(old: Any, new: Any) -> None:
    if isinstance(new, type):
        for key, value in vars(new).items():
            before = vars(old).get(key)
            if isinstance(value, property) and isinstance(before, property):
                _change(before.fget, value.fget)
            elif isinstance(value, staticmethod | classmethod) and isinstance(before, staticmethod | classmethod):
                _change(before.__func__, value.__func__)
            elif isinstance(value, FunctionType):
                _change(before, value)
            elif isinstance(value, bool | int | float | str | tuple | dict) and not key.startswith("__"):
                setattr(old, key, value)
        return
    while hasattr(old, "cache_clear"):
        old.cache_clear()
        old = old.__wrapped__
    old, new = inspect.unwrap(old), inspect.unwrap(new)
    if isinstance(old, FunctionType) and isinstance(new, FunctionType):
        old.__code__, old.__defaults__, old.__kwdefaults__ = new.__code__, new.__defaults__, new.__kwdefaults__
