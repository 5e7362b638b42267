"""Hooks that hand over what layers put out, for as long as a context lasts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, unpack_sequence
from torch.utils.hooks import RemovableHandle

from lightning_saturation.capture import compat, compiled
from lightning_saturation.capture.kinds import Kind, guessed, kind_of
from lightning_saturation.capture.look import Look
from lightning_saturation.capture.pooling import Pooling, check_pooling, pool, pool_ragged, positions_view
from lightning_saturation.capture.select import select_layers
from lightning_saturation.capture.sharded import gather_features

Record = Callable[[str, Tensor], None]


def capture(
    model: nn.Module,
    record: Record | None,
    *,
    layers: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    pooling: Pooling | None = "mean",
) -> Capture:
    """Return a context in which every forward of a selected layer of ``model`` calls ``record(name, rows)``.

    ``rows`` is (samples, features), detached, in the layer's precision; with ``pooling=None`` it is the output as it
    comes. Clone what you keep: a layer that works in place may go on to change it. The context gives the names.
    ``layers`` and ``exclude`` are those of :func:`select_layers`, ``pooling`` that of
    :func:`~lightning_saturation.capture.pooling.pool`. Recomputation by activation checkpointing is not recorded
    again; a layer used twice is recorded twice. Works in compiled models, which compile again on entry and exit.

    >>> seen = {}
    >>> with capture(nn.Linear(3, 2), seen.__setitem__) as names, torch.no_grad():
    ...     model = nn.Linear(3, 2)
    >>> names
    ('Linear',)
    """
    return Capture(model, record, layers=layers, exclude=exclude, pooling=pooling)


class Capture:
    """What :func:`capture` returns. ``record`` may change at any time; while it is None, nothing is handed over.

    ``trouble(name, error)``, where given, is told of an output that cannot be made into rows, which is then left out;
    otherwise such an error goes through the model's forward. With ``views``, every position's row comes as a view
    (samples, positions, features), not yet copied. Outputs that tensor parallelism has cut along their features are
    gathered; ``sharded`` holds layers for which that fails: their rows are not handed over.
    """

    def __init__(
        self,
        model: nn.Module,
        record: Record | None,
        *,
        layers: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
        pooling: Pooling | None = "mean",
        trouble: Callable[[str, Exception], None] | None = None,
        views: bool = False,
    ) -> None:
        self._views = views
        self._pooling = None if pooling is None else check_pooling(pooling)
        self._model = model
        self._layers = select_layers(model, layers, exclude)
        self.kinds = tuple(kind_of(module) for module in self._layers.values())
        self._handles: list[RemovableHandle] = []
        self._trouble = trouble
        self._number = -1
        self.record = record
        self.look: Look | None = None
        self.sharded: set[str] = set()
        self._dropped: set[int] = set()
        self.names = tuple(self._layers)

    def attach(self) -> None:
        """Put the hooks onto the model."""
        self.detach()
        self._number = compiled.register(self)
        with torch.inference_mode(False):
            token = torch.zeros(())
        try:
            for index, module in enumerate(self._layers.values()):
                hook = _Hook(self, token, self._number, index)
                self._handles.append(module.register_forward_hook(hook))
            compiled.forget_compiled(self._model)
        except BaseException:  # a module that takes no hooks, Ctrl-C: nothing may stay on the others
            self.detach()
            raise

    def detach(self) -> None:
        """Remove the hooks from the model; a second call does nothing."""
        compiled.unregister(self._number)
        if not self._handles:
            return
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        compiled.forget_compiled(self._model)

    def __enter__(self) -> tuple[str, ...]:
        self.attach()
        return self.names

    def __exit__(self, *_: object) -> None:
        self.detach()

    @property
    def layers(self) -> Mapping[str, nn.Module]:
        """The layers by name."""
        return self._layers

    def drop(self, name: str) -> None:
        """Hand nothing of layer ``name`` over any more."""
        self._dropped.add(self.names.index(name))

    def deliver(self, index: int, rows: Tensor) -> None:
        """Hand ``rows`` of layer number ``index`` over, unless ``record`` is None or they come from a recomputation."""
        if self.record is not None and not compat.in_backward() and index not in self._dropped:
            self.record(self.names[index], rows)

    def deliver_output(self, index: int, module: nn.Module, output: Any) -> None:
        """The same for an output that is not yet rows."""
        if self.record is None or compat.in_backward() or compat.in_transform() or compat.is_traced():
            return
        if index not in self._dropped:
            with nullcontext() if self.look is None else self.look.looking_away():
                self._deliver_rows(self.record, index, module, output)

    def _deliver_rows(self, record: Record, index: int, module: nn.Module, output: Any) -> None:
        try:
            rows = rows_of(module, output, self._pooling, kind=self.kinds[index], views=self._views)
        except Exception as error:
            if self._trouble is None:
                raise
            self._trouble(self.names[index], error)
            return
        if rows is None:
            self.sharded.add(self.names[index])
        else:
            record(self.names[index], rows)

    @property
    def raises(self) -> bool:
        """Whether an output that cannot be made into rows is an error of the forward that put it out."""
        return self._trouble is None

    @property
    def pooling(self) -> Pooling | None:
        """How outputs become rows."""
        return self._pooling

    @property
    def views(self) -> bool:
        """Whether every position's row comes as a view."""
        return self._views


class _Hook:
    """A forward hook that copies and pickles as one that does nothing: a copy of the model is not the watched model."""

    def __init__(self, owner: Capture, token: Tensor, number: int, index: int) -> None:
        self.owner, self.token, self.number, self.index = owner, token, number, index
        self.pooling, self.views, self.raises = owner.pooling, owner.views, owner.raises
        self.kind = owner.kinds[index]  # looked up here, as the compiler reads no tables

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        if not torch.compiler.is_compiling():
            self.owner.deliver_output(self.index, module, output)
        elif not (compat.is_exporting() or compat.in_transform()):
            try:
                rows = rows_of(module, output, self.pooling, kind=self.kind, views=self.views)
            except (TypeError, IndexError):
                if self.raises:
                    raise
                rows = None  # the layer will be reported as one that never ran
            if rows is not None:
                compiled.record(rows, self.token, self.number, self.index)

    def __reduce__(self) -> tuple[Any, ...]:
        return _nothing_hook, ()


def _nothing_hook() -> Callable[..., None]:
    return _nothing


def _nothing(*_: object) -> None:
    """Do nothing."""


def rows_of(
    module: nn.Module, output: Any, pooling: Pooling | None, *, kind: Kind | None, views: bool = False
) -> Tensor | None:
    """Return the rows of what ``module`` put out, or None where the output is only a shard of the layer's width."""
    # This is compiled too, and torch 2.5 compiles no `isinstance` of a union: tuples here, in layout_of and width_of.
    while isinstance(output, (tuple, list)) and not isinstance(output, PackedSequence):
        output = output[0]  # LSTM, GRU, multi-head attention: the features come first
    if isinstance(output, PackedSequence):
        output = output.data if pooling == "positions" or pooling is None else unpack_sequence(output)
    elif not isinstance(output, Tensor):
        raise TypeError(f"Expected a tensor from {type(module).__name__}, got {type(output).__name__}.")
    elif output.is_nested:
        output = list(output.unbind())
    if isinstance(output, list):
        if pooling is None:
            raise TypeError("Expected outputs of one length with `pooling=None`, got sequences of different lengths.")
        return pool_ragged([sequence.detach() for sequence in output], pooling=pooling)
    output = output.detach()
    layout = (guessed(output.ndim) if kind is None else kind).layout(module, output.ndim)
    expected = None if kind is None else kind.width_of(module)
    if expected is not None and output.shape[layout.features] != expected:
        if torch.compiler.is_compiling():
            return None
        whole = gather_features(module, output, dim=output.ndim + layout.features, features=expected)
        if whole is None:
            return None
        output = whole
    if pooling is None:
        whole_output: Tensor = output
        return whole_output
    if views and pooling == "positions":
        return positions_view(output, layout=layout)
    return pool(output, layout=layout, pooling=pooling)
