"""The hooks on layers: what these put out, and on inputs of which shapes they run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lightning_saturation.capture import compat, compiled
from lightning_saturation.capture.features import Neighbour
from lightning_saturation.capture.kinds import kind_of
from lightning_saturation.capture.layouts import Layouts
from lightning_saturation.capture.pooling import Layout
from lightning_saturation.capture.rows import output_of, rows_of
from lightning_saturation.capture.storages import tensors_in

if TYPE_CHECKING:
    from lightning_saturation.capture.capture import Capture

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class Hook:
    """Copies and pickles as a hook that does nothing: a copy of a model is not watched."""

    def __reduce__(self) -> tuple[Any, ...]:
        return nothing_hook, ()


def nothing_hook() -> Callable[..., None]:
    """Return a hook that does nothing."""
    return _nothing


def _nothing(*_: object, **__: object) -> None:
    """Do nothing."""


class OutputHook(Hook):
    """Hands what layer number ``index`` puts out to its ``owner``, through an operator where it runs compiled."""

    def __init__(self, owner: Capture, token: Tensor, number: int, index: int) -> None:
        self.owner, self.token, self.number, self.index = owner, token, number, index
        self.pooling, self.views, self.raises = owner.pooling, owner.views, owner.raises
        self.raw = owner.mask is not None  # masks differ from batch to batch, compiled code does not
        self.kind = owner.layouts.kinds[index]  # looked up here, as the compiler reads no tables
        self.dims = self.batch = -1
        self.learn(owner.layouts)

    def learn(self, layouts: Layouts) -> bool:
        """Take up where ``layouts`` has seen the samples, and return whether that is news."""
        before, (self.dims, self.batch) = (self.dims, self.batch), layouts.expected(self.index)
        return before != (self.dims, self.batch)

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        """Hand ``output`` over."""
        if not torch.compiler.is_compiling():
            self.owner.deliver_output(self.index, module, output)
        elif not (compat.is_exporting() or compat.in_transform()):
            try:
                rows = self._rows(module, output)
            except (TypeError, IndexError, ValueError):
                if self.raises:
                    raise
                rows = None  # the layer will be reported as one that never ran
            if rows is not None:
                compiled.record(rows, self.token, self.number, self.index)

    def _rows(self, module: nn.Module, output: Any) -> Tensor | None:
        whole = output_of(module, output, self.pooling)
        if isinstance(whole, list):
            return rows_of(module, whole, self.pooling, Layout())
        if self.raw:
            return whole
        if self.kind is None:
            raise ValueError("Expected a layer of a known kind where it runs compiled; tell of it: `register_layer`.")
        layout = self.kind.layout(module, whole.ndim)
        if whole.ndim == self.dims and self.batch >= 0:
            layout = Layout(layout.features, self.batch, layout.unbatched)
        return rows_of(module, whole, self.pooling, layout, width=self.kind.width_of(module), views=self.views)


class Landmark(Hook):
    """Notes where a layer of a known kind has its features, for what runs after it."""

    def __init__(self, owner: Capture | None) -> None:
        self.owner = owner

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        """Note the layout of ``output``."""
        if self.owner is not None and not torch.compiler.is_compiling():
            kind, tensor = kind_of(module), next(tensors_in(output), None)
            if kind is not None and tensor is not None:
                self.owner.layouts.neighbour = Neighbour(tuple(tensor.shape), kind.layout(module, tensor.ndim).features)


@contextmanager
def input_shapes(model: nn.Module, layers: Mapping[str, nn.Module]) -> Iterator[dict[str, set[tuple[int, ...]]]]:
    """Give the input shapes, without batch dimension, of every call of ``layers`` (by name) of ``model`` meanwhile.

    They are those of the layers that ran, in the order in which they first ran.
    """
    shapes: dict[str, set[tuple[int, ...]]] = {}
    with ExitStack() as stack:
        stack.callback(compiled.forget_compiled, model)  # last, when the hooks are gone
        for name, module in layers.items():
            stack.callback(module.register_forward_pre_hook(_ShapeHook(shapes, name), with_kwargs=True).remove)
        compiled.forget_compiled(model)
        yield shapes


class _ShapeHook(Hook):
    def __init__(self, shapes: dict[str, set[tuple[int, ...]]], name: str) -> None:
        self.shapes, self.name = shapes, name

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = args[0] if args else next(iter(kwargs.values()), None)
        if isinstance(given, Tensor):
            sizes = tuple(int(size) for size in given.shape)
            whole = sizes[-len(module.kernel_size) - 1 :] if isinstance(module, CONVOLUTIONS) else sizes[1:] or sizes
            self.shapes.setdefault(self.name, set()).add(whole)
