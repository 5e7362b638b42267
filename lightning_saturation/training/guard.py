"""Errors of this package: a warning for each cause, and never the end of a user's run."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


class Guard:
    """Runs what may fail for ``owner``, the name of a callback, and turns what it raises into warnings."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._told: set[tuple[str, str]] = set()

    @contextmanager
    def __call__(self, action: str) -> Iterator[None]:
        """Run the body; of errors that differ in their numbers at most the first becomes a warning.

        ``KeyboardInterrupt`` and others that are not an ``Exception`` pass.
        """
        try:
            yield
        except Exception as error:
            self.tell(action, error)

    def tell(self, action: str, error: Exception) -> None:
        """Warn that ``owner`` could not do ``action``, unless that was said of such an ``error`` before."""
        what = str(error).partition("\n")[0]
        cause = (type(error).__name__, re.sub(r"\d+", "#", what))
        if cause not in self._told:
            self._told.add(cause)
            message = f"{self._owner} could not {action}; training goes on. {type(error).__name__}: {what}"
            warnings.warn(message, stacklevel=4)
