"""Running a user's model outside of training, with its own weights or fresh ones, and leaving it as it was."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from tqdm.auto import tqdm  # comes with lightning

from lightning_saturation.arguments import check_count

Forward = Callable[[Any, Any], Any]
"""``forward(model, batch)`` runs a model that takes more than one tensor."""


@contextmanager
def evaluating(model: nn.Module, device: torch.device | str | None) -> Iterator[torch.device]:
    """Put ``model`` into evaluation mode on ``device`` and give that device; restore modes and device afterwards."""
    modes = {module: module.training for module in model.modules()}
    origin = next(iter([*model.parameters(), *model.buffers()]), torch.empty(0)).device
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


@dataclass(frozen=True)
class Batches:
    """At most ``most`` batches of ``source``, and how models run on them: on ``device``, through ``forward``.

    ``bar`` is the name of a progress bar, None for none.
    """

    source: Iterable[Any]
    most: int | None = None
    device: torch.device | str | None = None
    forward: Forward | None = None
    bar: str | None = None

    def __post_init__(self) -> None:
        check_count("max_batches", self.most, optional=True)
        # Asking a loader for its batches would start workers.
        if not (hasattr(self.source, "__iter__") or hasattr(self.source, "__getitem__")):
            raise TypeError(f"Expected `batches` to be a loader or a list of batches, got {self.source!r}.")

    @property
    def number(self) -> int | None:
        """How many batches there will be, None where that is not known."""
        try:
            known = len(cast(Sized, self.source))
        except TypeError:
            return self.most
        return known if self.most is None else min(known, self.most)

    @contextmanager
    def over(self, *models: nn.Module) -> Iterator[Iterator[tuple[Any, list[torch.device]]]]:
        """Give an iterator over the batches, each with the devices that the ``models`` are on.

        Meanwhile they are in evaluation mode, without gradients; afterwards they are as they were.
        """
        with ExitStack() as stack:
            homes = [stack.enter_context(evaluating(model, self.device)) for model in models]
            each = islice(self.source, self.most)
            shown = stack.enter_context(tqdm(each, self.bar, self.number, disable=self.bar is None))
            yield ((batch, homes) for batch in shown)

    def run(self, model: Callable[..., Any], batch: Any, device: torch.device) -> Any:
        """Return the output of ``model`` for the inputs in ``batch``, moved to ``device``.

        A batch is a tensor, a tuple or list whose first element is the input (labels may follow), or a dict of keyword
        arguments; for ``forward(model, batch)``, where given, it may be anything.
        """
        batch = _moved(batch, device)
        if self.forward is not None:
            return self.forward(model, batch)
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


def fresh_weights(model: nn.Module, *, seed: int = 0) -> tuple[dict[str, Tensor], list[str]]:
    """Return newly initialised parameters and buffers of ``model`` by name, and the names of parameters without any.

    Every module draws again as it does when it is made (``reset_parameters``), buffers such as the running means of
    batch norms included. What a model initialises elsewhere, in its own ``__init__`` for instance, cannot be drawn
    again and is named in the second list. ``model`` and the global random state stay as they are.
    """
    drawn: dict[str, Tensor] = {}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for name, module in model.named_modules():
            own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
            reset = "reset_parameters" if hasattr(module, "reset_parameters") else "_reset_parameters"
            if not own or not hasattr(module, reset):
                continue
            # A copy of the one module, on the CPU, whose generator is the one that was put aside.
            made = copy.deepcopy(module).cpu()
            getattr(made, reset)()
            prefix = f"{name}." if name else ""
            fresh = {**dict(made.named_parameters(recurse=False)), **dict(made.named_buffers(recurse=False))}
            drawn |= {prefix + key: fresh[key].detach().to(old) for key, old in own}
    kept = [name for name, _ in model.named_parameters() if name not in drawn]
    return drawn, kept


def with_weights(model: nn.Module, weights: dict[str, Tensor]) -> Callable[..., Any]:
    """Return ``model`` as a function that runs with ``weights`` in the place of its own; its hooks fire."""

    def call(*args: Any, **kwargs: Any) -> Any:
        # The model may have been moved since the weights were drawn.
        home = {name: tensor.device for name, tensor in (*model.named_parameters(), *model.named_buffers())}
        return functional_call(model, {name: w.to(home[name]) for name, w in weights.items()}, args, kwargs)

    return call
