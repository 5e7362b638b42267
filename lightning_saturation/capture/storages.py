"""The tensors in what people pass around, and the memory that they share with others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.nn.parameter import is_lazy

from lightning_saturation.capture import compat


class Storages:
    """Numbers for the storages of tensors: the same for all views of one, and no number twice until ``forget``.

    Nothing is kept alive but the address.
    """

    def __init__(self) -> None:
        self._seen: dict[int, Any] = {}

    def key(self, tensor: Tensor) -> int | None:
        """Return the number of the storage of ``tensor``, or None where it has none (sparse tensors, transforms)."""
        reference = compat.storage_reference(tensor)
        if reference is None:
            return None
        self._seen[reference.cdata] = reference
        return int(reference.cdata)

    def forget(self) -> None:
        """Let addresses be used again."""
        self._seen.clear()


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested containers, but for parameters that a lazy layer has yet to make."""
    if isinstance(value, Tensor):
        if not is_lazy(value):
            yield value
    elif isinstance(value, list | tuple | Mapping):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from tensors_in(part)
