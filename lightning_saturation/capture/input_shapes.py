"""On inputs of which shape layers run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from lightning_saturation.capture import compiled
from lightning_saturation.capture.hooks import nothing_hook

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@contextmanager
def input_shapes(model: nn.Module, layers: Mapping[str, nn.Module]) -> Iterator[dict[str, set[tuple[int, ...]]]]:
    """Give the input shapes, without batch dimension, of every call of ``layers`` (by name) of ``model`` meanwhile.

    They are those of the layers that ran, in the order in which they first ran.
    """
    shapes: dict[str, set[tuple[int, ...]]] = {}
    with ExitStack() as stack:
        stack.callback(compiled.forget_compiled, model)  # last, when the hooks are gone
        for name, module in layers.items():
            stack.callback(module.register_forward_pre_hook(_Hook(shapes, name), with_kwargs=True).remove)
        compiled.forget_compiled(model)
        yield shapes


class _Hook:
    """A forward hook that copies and pickles as one that does nothing: a copy of the model is not the watched one."""

    def __init__(self, shapes: dict[str, set[tuple[int, ...]]], name: str) -> None:
        self.shapes, self.name = shapes, name

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = args[0] if args else next(iter(kwargs.values()), None)
        if isinstance(given, Tensor):
            self.shapes.setdefault(self.name, set()).add(_without_batch(module, tuple(given.shape)))

    def __reduce__(self) -> tuple[Any, ...]:
        return nothing_hook, ()


def _without_batch(module: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
    sizes = tuple(int(size) for size in shape)
    if isinstance(module, _CONVOLUTIONS):
        return sizes[-len(module.kernel_size) - 1 :]
    return sizes[1:] if len(sizes) > 1 else sizes
