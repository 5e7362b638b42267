"""Hooks that hand over what layers put out, for as long as a context lasts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lightning_saturation.capture import compat, compiled
from lightning_saturation.capture.hooks import Landmark, OutputHook
from lightning_saturation.capture.kinds import kind_of
from lightning_saturation.capture.layouts import Layouts
from lightning_saturation.capture.look import Look, anybody_looks
from lightning_saturation.capture.masks import PaddingWarning, mask_of
from lightning_saturation.capture.pooling import Layout, Pooling, Usual, pooler
from lightning_saturation.capture.rows import masked_rows, output_of, rows_of
from lightning_saturation.capture.samples import batch_size
from lightning_saturation.capture.select import CaptureOptions, offered_modules

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
    return Capture(model, record, CaptureOptions(layers, exclude, pooling))


class Capture:
    """What :func:`capture` returns. ``record`` may change at any time; while it is None, nothing is handed over.

    ``trouble(name, error)``, where given, is told of an output that cannot be made into rows, which is then left out;
    otherwise such an error goes through the model's forward. With ``views``, every position's row comes as a view
    (samples, positions, features), not yet copied. ``mask`` says which positions are no padding; ``masked`` holds the
    layers in which it did. Outputs that tensor parallelism has cut along their features are gathered; ``sharded`` holds
    layers for which that fails: their rows are not handed over, nor are those of layers whose numbers are ``dropped``.

    ``fresh`` says of what is being recorded that nobody else has it, so that it may be kept without a copy.

    Between ``begin`` and ``end`` a batch runs, of which ``samples`` is the size, ``size`` also afterwards; a ``look``
    at it as it runs tells where layers have their samples, and ``must_repeat`` says that this was found out too late.
    """

    def __init__(
        self,
        model: nn.Module,
        record: Record | None,
        options: CaptureOptions = CaptureOptions(),  # noqa: B008
        *,
        trouble: Callable[[str, Exception], None] | None = None,
        views: bool = False,
    ) -> None:
        self.views = views
        self.pooling, self.mask = options.pooling, options.mask
        self.masked: set[str] = set()
        self._model = model
        self._options = options
        self.layers: Mapping[str, nn.Module] = options.select(model)
        self.names = tuple(self.layers)
        self.layouts = Layouts(model, self.layers)
        self.look = Look(model, self.layers)
        self.samples = self.size = 0
        self.must_repeat = False
        self._positions: Tensor | None = None
        self._looked = False
        self._padding = PaddingWarning(self.mask)
        self._hooks: list[OutputHook] = []
        self._handles: list[RemovableHandle] = []
        self._trouble = trouble
        self.raises = trouble is None
        self._usual: dict[int, Usual] = {}
        self.fresh = False
        self._number = -1
        self.record = record
        self.sharded: set[str] = set()
        self.dropped: set[int] = set()

    def attach(self) -> None:
        """Put the hooks onto the model."""
        self.detach()
        self._number = compiled.register(self)
        with torch.inference_mode(False):
            token = torch.zeros(())
        try:
            if None in self.layouts.kinds:  # their neighbours tell what they do not
                for _, module in offered_modules(self._model):
                    if kind_of(module) is not None:
                        self._handles.append(module.register_forward_hook(Landmark(self)))
            for index, module in enumerate(self.layers.values()):
                hook = OutputHook(self, token, self._number, index)
                self._hooks.append(hook)
                self._handles.append(module.register_forward_hook(hook))
            compiled.forget_compiled(self._model)
        except BaseException:  # a module that takes no hooks, Ctrl-C: nothing may stay on the others
            self.detach()
            raise

    def detach(self) -> None:
        """Remove the hooks from the model; a second call does nothing."""
        self.end()
        compiled.unregister(self._number)
        if not self._handles:
            return
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._hooks.clear()
        compiled.forget_compiled(self._model)

    def __enter__(self) -> tuple[str, ...]:
        self.attach()
        return self.names

    def __exit__(self, *_: object) -> None:
        try:
            self.detach()
        finally:  # Ctrl-C may come in the middle of it
            self.detach()

    def begin(self, batch: Any, *, look: bool = False, eagerly: bool = True) -> None:
        """Begin to run ``batch``; ``look`` at it as it runs, ``eagerly`` where a part of it is compiled."""
        self.end()
        self._positions = mask_of(batch, self.mask)
        self._padding.look(batch)
        if look:
            self.look.begin(batch, eagerly=eagerly)
            self.samples = self.look.axes.size
        else:
            self.samples = batch_size(batch, second=self.look.axes.second)

    def end(self) -> None:
        """End the batch."""
        self._positions, self.samples, self.must_repeat = None, 0, False
        if self.look.is_open:
            self.look.end()
            self._usual.clear()
            self.must_repeat = self.look.axes.was_wrong
            if self.must_repeat:
                self.layouts.forget()
                self._looked = False
            news = [hook.learn(self.layouts) for hook in self._hooks]
            if any(news):
                compiled.forget_compiled(self._model)

    def attempts(self, batch: Any) -> Iterator[int]:
        """Yield 0 when ``batch`` must run, and 1 where it must run again, as its samples turn out to come second.

        What was recorded of the first time is then to be forgotten; that is so in the first batch only. It trains
        nothing, so that it is looked at whether or not anything is compiled.
        """
        for attempt in range(2):
            self.begin(batch, look=not self._looked)
            self._looked, self.size = True, self.samples
            try:
                yield attempt
            finally:
                self.end()
            if not self.must_repeat:
                return

    @property
    def is_current(self) -> bool:
        """Whether the layers are still those of the model; a layer that it has no more may not even be named."""
        try:
            now = self._options.select(self._model)
        except ValueError:
            return False
        return list(map(id, now.values())) == list(map(id, self.layers.values()))

    def deliver(self, index: int, rows: Tensor) -> None:
        """Hand ``rows`` of layer number ``index`` over, unless ``record`` is None or they come from a recomputation.

        With a ``mask`` they are an output that is not yet rows.
        """
        if self.record is not None and not compat.in_backward() and index not in self.dropped:
            if self.mask is None:
                self.record(self.names[index], rows)
            else:
                self._deliver_rows(self.record, index, self.layers[self.names[index]], rows)

    def deliver_output(self, index: int, module: nn.Module, output: Any) -> None:
        """The same for an output that is not yet rows."""
        if self.record is None or compat.is_no_data() or index in self.dropped:
            return
        usual = self._usual.get(index)
        if usual is not None and not anybody_looks() and usual.fits(output, self.samples):
            rows, self.fresh = usual.rows(output.detach()), usual.fresh
            try:
                self.record(self.names[index], rows)
            finally:
                self.fresh = False
            return
        with self.look.looking_away():
            self._deliver_rows(self.record, index, module, output)

    def layout(self, name: str, output: Tensor) -> Layout:
        """Return where ``output``, just now put out by layer ``name``, holds what."""
        axis = self.look.axes.axis(output) if self.look.is_open else None
        index = self.names.index(name)
        return self.layouts.of(index, self.layers[name], output.shape, axis=axis, samples=self.samples)

    def _deliver_rows(self, record: Record, index: int, module: nn.Module, output: Any) -> None:
        name = self.names[index]
        try:
            rows = self._rows(name, module, output_of(module, output, self.pooling))
        except Exception as error:
            if self._trouble is None:
                raise
            self._trouble(name, error)
            return
        if rows is None:
            self.sharded.add(name)
        else:
            record(name, rows)

    def _rows(self, name: str, module: nn.Module, output: Tensor | list[Tensor]) -> Tensor | None:
        if isinstance(output, list):
            return rows_of(module, output, self.pooling, Layout())
        number = self.names.index(name)
        kind = self.layouts.kinds[number]
        if self.pooling is None and kind is None:
            return output
        layout = self.layout(name, output)
        width = None if kind is None else kind.width_of(module)
        pooling = self.pooling
        if pooling is None or width not in (None, output.shape[layout.features]):
            return rows_of(module, output, pooling, layout, width=width, views=self.views)
        if self._positions is not None:
            axis = self.look.axes.axis(output) if self.look.is_open else None
            rows = masked_rows(output, pooling, layout, self._positions, axis=axis)
            if rows is not None:
                self.masked.add(name)
                return rows
        make = pooler(output, layout=layout, pooling=pooling, views=self.views)
        rows = make(output)
        if self.mask is None and type(output) is Tensor:  # masks differ from batch to batch
            fresh = rows.untyped_storage().data_ptr() != output.untyped_storage().data_ptr()
            self._usual[number] = Usual(output.shape, output.dtype, self.samples, make, fresh)
        return rows
