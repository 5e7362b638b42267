"""Trouble in any function of the package while a callback's hooks run, found at run time wherever it may live."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback

import lightning_saturation
from tests.contract.callbacks import CALLBACKS

OURS = str(Path(lightning_saturation.__file__).parent)

GUARDS = frozenset(
    {
        "Guard.__call__",
        "Guard.tell",
        "WindowCloser._close",
        "SaturationStopping._decide",
        # How ranks tell each other that one of them failed.
        "together",
        "is_distributed",
        "wire_device",
        "_ranks",
        "_Section.__init__",
        "_Section.meet",
        "_Section.ask",
        "_Section.error",
        "Monitor._prepare_together",
        "Monitor._hear",
    }
)
"""Qualified names of the functions that hold the ``try``: what these raise before it, nothing of ours could catch."""

ERRORS = (RuntimeError, MemoryError, torch.linalg.LinAlgError)

NOT_WHILE_TRAINING = {"on_fit_start", "on_fit_end", "on_save_checkpoint", "on_load_checkpoint", "on_exception"}
"""Mistakes in arguments are shown when fitting starts, and exceptions have a promise of their own."""

ALL_HOOKS = frozenset(name for name in dir(Callback) if not name.startswith("__"))
HOOKS = frozenset(name for name in ALL_HOOKS if name.startswith("on_")) - NOT_WHILE_TRAINING
REPEATED = frozenset({"on_train_end", "on_exception"})
"""Hooks that Lightning calls once: here they are called until nothing fails in them any more, and once more."""

SHARE = 1 if os.environ.get("CONTRACT") == "all" else 6
"""Of how many functions one fails; callbacks share many of them, and each begins with another."""


class Trouble:
    """Raises once in each of ``faults``, the outermost first and one in each call of a hook; none: only looks.

    ``found`` holds the functions that ran within the hooks, ``fired`` those that raised, with the hook. With
    ``for_good`` they raise again in every call.
    """

    def __init__(
        self,
        callbacks: Iterable[Callback],
        faults: Iterable[str] = (),
        *,
        hooks: Iterable[str] = HOOKS,
        for_good: bool = False,
    ) -> None:
        self.pending = dict.fromkeys(faults)
        self.hooks, self.for_good = hooks, for_good
        self.found: dict[str, str] = {}
        self.fired: list[tuple[str, str]] = []
        for callback in callbacks:
            for hook in self.hooks:
                method = getattr(callback, hook)
                if method.__func__.__code__.co_filename.startswith(OURS):
                    setattr(callback, hook, self._wrapped(hook, method))

    def _wrapped(self, hook: str, method: Callable[..., None]) -> Callable[..., None]:
        def troubled(*args: Any, **kwargs: Any) -> None:
            fired = -1
            while fired < len(self.fired):
                fired = len(self.fired)
                before = sys.gettrace()
                sys.settrace(lambda frame, event, arg: self._look(hook, frame))  # of calls only, as it returns None
                try:
                    method(*args, **kwargs)
                finally:
                    sys.settrace(before)
                if hook not in REPEATED or self.for_good:
                    break

        return troubled

    def _look(self, hook: str, frame: FrameType) -> None:
        if not frame.f_code.co_filename.startswith(OURS) or not _is_inner(frame):
            return
        key = _key(frame)
        self.found.setdefault(key, hook)
        if key in self.pending:
            if not self.for_good:
                del self.pending[key]
            self.fired.append((key, hook))
            raise error_in(key)


def some(found: Iterable[str], name: str) -> list[str]:
    """Return those of the functions ``found`` that fail for the callback called ``name``."""
    return list(found)[list(CALLBACKS).index(name) % SHARE :: SHARE]


def error_in(key: str) -> Exception:
    """Return what ``key`` raises: always the same of the kinds of error that there are."""
    return ERRORS[sum(key.encode()) % len(ERRORS)](f"injected into <{key}>")


def _key(frame: FrameType) -> str:
    code = frame.f_code
    name = getattr(code, "co_qualname", None) or _qualified(frame)  # younger than Python 3.10
    return f"{Path(code.co_filename).relative_to(OURS)}:{name}"


def _qualified(frame: FrameType) -> str:
    """Return the name of a frame's function behind that of the class which holds it, if one does."""
    name, code = frame.f_code.co_name, frame.f_code
    for owner in type(frame.f_locals.get("self")).__mro__:
        held = owner.__dict__.get(name)
        if getattr(inspect.unwrap(getattr(held, "fget", held)), "__code__", None) is code:
            return f"{owner.__qualname__}.{name}"
    return name


def _is_inner(frame: FrameType) -> bool:
    """Return whether ``frame`` is called, however indirectly, by a function of the package, and may fail."""
    code = frame.f_code
    if code.co_name.startswith("<") or code.co_name in ALL_HOOKS or _key(frame).partition(":")[2] in GUARDS:
        return False
    caller = frame.f_back
    while caller is not None and caller.f_code.co_name != "troubled":
        if caller.f_code.co_filename.startswith(OURS):
            return True
        caller = caller.f_back
    return False
