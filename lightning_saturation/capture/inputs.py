"""What of a batch a model takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any


def call_with(model: Callable[..., Any], batch: Any, *, like: Callable[..., Any] | None = None) -> Any:
    """Return the output of ``model`` for the inputs in ``batch``; ``like``, if given, says what arguments it takes.

    Of a tuple or list ``model`` gets as many of the first elements as it needs arguments (labels may follow), of a dict
    the entries that it has arguments for; a tuple of one required argument, or a batch of any other kind, is that
    argument itself.
    """
    said = model if like is None else like
    if isinstance(batch, Mapping):
        positional, keywords, anything = _arguments(said)
        chosen = {key: value for key, value in batch.items() if anything or key in keywords}
        # A model whose first argument is called like nothing in the dict takes the dict itself.
        return model(batch) if positional and not set(positional) & set(chosen) and not anything else model(**chosen)
    if isinstance(batch, list | tuple) and batch:
        positional, _, _ = _arguments(said)
        return model(*batch[: max(1, len(positional))])
    return model(batch)


def _arguments(model: Callable[..., Any]) -> tuple[list[str], set[str], bool]:
    """Return the arguments that ``model`` needs, all that it can be given by name, and whether it takes any name."""
    forward = getattr(model, "forward", model)
    try:
        parameters = inspect.signature(forward).parameters.values()
    except (TypeError, ValueError):  # compiled code, which says nothing
        return [], set(), True
    by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [p.name for p in parameters if p.kind in by_place and p.default is inspect.Parameter.empty]
    named = {p.name for p in parameters if p.kind in (by_place[1], inspect.Parameter.KEYWORD_ONLY)}
    return needed, named, any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
