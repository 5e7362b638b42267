"""A look at a step as it runs: every operator of it, and which layer it is in."""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_saturation.capture import compat
from lightning_saturation.capture.dataflow import DataFlow
from lightning_saturation.capture.hooks import Hook
from lightning_saturation.capture.layouts import samples_second_everywhere
from lightning_saturation.capture.samples import SampleAxes
from lightning_saturation.capture.storages import tensors_in


class Look:
    """Looks at steps of ``model`` between ``begin`` and ``end``, and learns the ``flow`` among ``layers`` (by name).

    ``axes`` tells, while a step runs, where a tensor of it has the samples.

    Nothing is run twice, changed, or kept alive; what a backward does, recomputation among it, is not looked at.
    Compiled functions run as they were written meanwhile: a step that trains a compiled model is no step to look at.
    Unless ``eagerly``, for which torch must be one of those that can, they run compiled, and where one did, nothing was
    learned of the flow.
    """

    def __init__(self, model: nn.Module, layers: Mapping[str, nn.Module]) -> None:
        self.flow = DataFlow(tuple(layers), [*model.parameters(), *model.buffers()])
        self.axes = SampleAxes(self.flow.storages, second=samples_second_everywhere(model))
        self._layers = tuple(layers.values())
        self._telling = [m for m in model.modules() if isinstance(getattr(m, "batch_first", None), bool)]
        self._open: ExitStack | None = None
        self._eagerly = True
        self._told: set[str] = set()

    @property
    def is_open(self) -> bool:
        """Whether a step is being looked at."""
        return self._open is not None

    def begin(self, batch: Any = None, *, eagerly: bool = True) -> None:
        """Look at what runs from here on, on ``batch``."""
        self.end()
        self._eagerly = eagerly
        self.flow.forget()
        self.axes.begin(batch)
        with ExitStack() as stack:
            for module in self._telling:
                stack.callback(module.register_forward_pre_hook(_StepHook(self, self.axes.meet)).remove)
            for index, module in enumerate(self._layers):
                stack.callback(module.register_forward_pre_hook(_StepHook(self, self._before)).remove)
                stack.callback(module.register_forward_hook(_StepHook(self, partial(self._behind, index))).remove)
            stack.enter_context(_SHARED.joined(self, eagerly))
            self._open = stack.pop_all()

    def end(self) -> None:
        """Look no longer, and forget all but what was learned."""
        if self._open is not None:
            self._open.close()
            self._open = None
            self.axes.forget()
            self.flow.forget()
            if not self._eagerly and compat.anything_was_compiled():
                self.flow.unlearn()

    def _before(self, *_: Any) -> None:
        self.flow.enter()

    def _behind(self, index: int, module: nn.Module, args: Any, output: Any) -> None:
        self.flow.leave(index, output)

    def looking_away(self) -> AbstractContextManager[None]:
        """Return a context for what is of our own, and no part of the step."""
        return _away() if anybody_looks() else nullcontext()

    @property
    def sees(self) -> bool:
        """Whether what runs now is part of the step."""
        return not (_SHARED.away or self._open is None or compat.in_backward() or compat.in_transform())

    @contextmanager
    def trying(self) -> Iterator[None]:
        """Do what may fail while the user's step goes on; each cause is told once."""
        try:
            yield
        except Exception as error:
            cause = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            if (kind := re.sub(r"\d+", "#", cause)) not in self._told:
                self._told.add(kind)
                with suppress(Warning):  # where warnings are errors
                    warnings.warn(
                        f"Could not follow all data through a step, layers may be out of order. {cause}", stacklevel=2
                    )

    def note(self, func: Any, args: Any, kwargs: dict[str, Any], out: Any) -> None:
        """Take in that an operator ran."""
        given = list(tensors_in((args, kwargs)))
        self.flow.note(func, given, _written(func, args, kwargs), out)
        with self.trying():  # the order is known without it
            self.axes.note(func, args, kwargs, given, out)


@contextmanager
def _away() -> Iterator[None]:
    before, _SHARED.away = _SHARED.away, True
    try:
        yield
    finally:
        _SHARED.away = before


def anybody_looks() -> bool:
    """Return whether any look of this thread is open, so that what runs is noted."""
    return bool(_SHARED.looks)


def _written(func: Any, args: Any, kwargs: dict[str, Any]) -> list[Tensor]:
    """Return the tensors that ``func`` works on in place."""
    schema = compat.schema(func)
    if not schema.is_mutable:
        return []
    return [
        part
        for index, argument in enumerate(schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
        for part in tensors_in(args[index] if index < len(args) else kwargs.get(argument.name))
    ]


class _Shared(threading.local):
    """What all open looks of a thread share, since they end in any order, as callbacks do, and modes only nested.

    ``away`` is whether something of our own runs, which is no part of anybody's step.
    """

    def __init__(self) -> None:
        self.away = False
        self.looks: list[Look] = []
        self._open = ExitStack()

    @contextmanager
    def joined(self, look: Look, eagerly: bool) -> Iterator[None]:
        """Show ``look`` every operator that runs; compiled functions may run ``eagerly`` meanwhile."""
        if not self.looks:
            with ExitStack() as stack:
                if eagerly:
                    stack.enter_context(compat.run_eagerly())
                stack.enter_context(_Mode())  # type: ignore[no-untyped-call]
                self._open = stack.pop_all()
        self.looks.append(look)
        try:
            yield
        finally:
            self.looks.remove(look)
            if not self.looks:
                self._open.close()


_SHARED = _Shared()


class _Mode(compat.TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Shows the open looks of this thread every operator that runs."""

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Let functions be compiled; whether they run compiled is not for a mode to say."""
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for look in _SHARED.looks:
            if look.sees:
                with look.trying():
                    look.note(func, args, kwargs or {}, out)
        return out


class _StepHook(Hook):
    """Does something where what runs is part of the step."""

    def __init__(self, look: Look, do: Callable[..., None]) -> None:
        self.look, self.do = look, do

    def __call__(self, *given: Any) -> None:
        if not torch.compiler.is_compiling() and self.look.sees:
            with self.look.trying():
                self.do(*given)
