"""Running a user's model over batches outside of training, and leaving it as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import ExitStack, contextmanager
from itertools import islice
from typing import Any, cast

import torch
from torch import nn
from tqdm.auto import tqdm  # comes with lightning

Forward = Callable[[Any, Any], Any]
"""``forward(model, batch)`` runs a model that takes more than one tensor."""


@contextmanager
def evaluating(model: nn.Module, device: torch.device | str | None) -> Iterator[torch.device]:
    """Put ``model`` into evaluation mode on ``device`` and give that device; restore modes and device afterwards."""
    modes = {module: module.training for module in model.modules()}
    parameter = next(iter([*model.parameters(), *model.buffers()]), torch.empty(0))
    origin = parameter.device
    home = origin if device is None else torch.device(device)
    try:
        model.eval()
        if device is not None:
            model.to(home)
        with torch.no_grad():
            yield home
    finally:
        for module, training in modes.items():
            module.training = training
        if device is not None:
            model.to(origin)


@contextmanager
def each_batch(
    models: Sequence[nn.Module],
    batches: Iterable[Any],
    *,
    max_batches: int | None = None,
    device: torch.device | str | None = None,
    bar: str | None = None,
) -> Iterator[Iterator[tuple[Any, list[torch.device]]]]:
    """Give an iterator over at most ``max_batches`` of ``batches``, each with the devices that the ``models`` are on.

    Meanwhile they are in evaluation mode on ``device``, without gradients; afterwards they are as they were. ``bar`` is
    the name of a progress bar, None for none.
    """
    if not (hasattr(batches, "__iter__") or hasattr(batches, "__getitem__")):  # asking a loader would start workers
        raise TypeError(f"Expected `batches` to be a loader or a list of batches, got {batches!r}.")
    with ExitStack() as stack:
        homes = [stack.enter_context(evaluating(model, device)) for model in models]
        total = length(batches, max_batches)
        shown = stack.enter_context(tqdm(islice(batches, max_batches), bar, total, disable=bar is None))
        yield ((batch, homes) for batch in shown)


def run(model: Callable[..., Any], batch: Any, device: torch.device, *, forward: Forward | None = None) -> Any:
    """Return the output of ``model`` for the inputs in ``batch``, moved to ``device``.

    A batch is a tensor, a tuple or list whose first element is the input (labels may follow), or a dict of keyword
    arguments; for ``forward(model, batch)``, where given, it may be anything.
    """
    batch = _moved(batch, device)
    if forward is not None:
        return forward(model, batch)
    if isinstance(batch, Mapping):
        return model(**batch)
    if isinstance(batch, list | tuple):
        if not batch:
            raise ValueError(f"Expected a batch whose first element is the input, got {batch!r}.")
        batch = batch[0]
    return model(batch)


def _moved(value: Any, device: torch.device) -> Any:
    """Return ``value`` with every tensor in it, and whatever else knows how to move, on ``device``."""
    if isinstance(value, Mapping):
        return {key: _moved(part, device) for key, part in value.items()}
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return type(value)(_moved(part, device) for part in value)
    return value.to(device) if callable(getattr(value, "to", None)) else value


def length(batches: Iterable[Any], max_batches: int | None) -> int | None:
    """Return how many batches there will be, for the progress bar; None where that is not known."""
    try:
        known = len(cast(Sized, batches))
    except TypeError:
        return max_batches
    return known if max_batches is None else min(known, max_batches)
