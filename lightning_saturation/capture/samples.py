"""Where the samples of a batch are in what layers put out, followed through a step as it runs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_saturation.capture import compat
from lightning_saturation.capture.storages import Storages, tensors_in


class Axis(NamedTuple):
    """Entry i of dimension ``dim`` belongs to sample ``i // inner % samples``."""

    dim: int
    inner: int
    samples: int


class SampleAxes:
    """Where each tensor of a step holds the samples of its batch, as far as strides tell.

    A storage carries how many of its elements lie between one sample and the next, and how many samples there are.
    Views (permutations, windows, heads, slices) need no rule; only operators that make a new storage do. A batch is
    taken to hold its samples first, or ``second`` where a module that says so by its ``batch_first`` is given it
    otherwise, or where that is the one size that its tensors share.
    """

    def __init__(self, storages: Storages, *, second: bool = False) -> None:
        self._storages = storages
        self.second = second
        self.size = 0
        self.was_wrong = False
        self._corrected = False
        self._marks: dict[int, tuple[int, int]] = {}

    def begin(self, batch: Any) -> None:
        """Begin a step on ``batch``."""
        self._marks, self.was_wrong = {}, False
        self.size = batch_size(batch, second=self.second)
        for tensor in tensors_in(batch):
            if self.size > 1 and self.size in (at := tensor.shape[self.second and tensor.ndim > 1 : 2]):
                self._mark(tensor, Axis(at.index(self.size) + (len(at) < min(tensor.ndim, 2)), 1, self.size))

    def forget(self) -> None:
        """Drop what is known of tensors."""
        self._marks = {}

    def meet(self, module: nn.Module, args: Any) -> None:
        """Take in that ``module``, which says where it wants samples, is given ``args``."""
        tensor = next(tensors_in(args), None)
        if tensor is None or tensor.ndim != 3 or min(tensor.shape[:2]) < 2:
            return
        axis, wanted = self.axis(tensor), int(not module.batch_first)
        if axis is None or axis.dim != 1 - wanted or axis.inner != 1 or axis.samples != tensor.shape[1 - wanted]:
            return
        if not self._corrected:  # who is right is found out once
            self._corrected = self.was_wrong = True
            self.second = not self.second

    def axis(self, tensor: Tensor) -> Axis | None:
        """Return where ``tensor`` holds the samples, None where that cannot be told."""
        key = self._storages.key(tensor)
        step, samples = self._marks.get(-1 if key is None else key, (0, 0))
        found = None
        for dim, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
            if not step or size == 1 or stride == 0 or stride % (step * samples) == 0:
                continue
            if stride * size > step and step % stride == 0 and found is None:
                inner = step // stride
                found = Axis(dim, inner, min(samples, size // inner))
            elif stride >= step:
                return None  # one sample's number is spread over two dimensions
        return found

    def note(self, func: Any, args: Any, kwargs: dict[str, Any], given: Sequence[Tensor], out: Any) -> None:
        """Take in that the operator ``func`` made ``out`` of ``given``, the tensors in ``args`` and ``kwargs``."""
        keys = {self._storages.key(tensor) for tensor in given}
        known = [(tensor, axis) for tensor in given if (axis := self.axis(tensor)) is not None]
        noise = torch.Tag.nondeterministic_seeded in func.tags
        for tensor in tensors_in(out):
            key = self._storages.key(tensor)
            if key is None or (key in keys and (key in self._marks or not compat.schema(func).is_mutable)):
                continue  # a view, or written into what was known
            carried = (_carry(func, args, kwargs, t, a, tensor, self.size) for t, a in known)
            moved = [axis for axis in carried if axis is not None]
            if not moved and noise and tensor.ndim and len(tensor) == self.size > 1:
                moved = [Axis(0, 1, self.size)]
            self._marks.pop(key, None)
            if moved and tensor.numel():
                self._mark(tensor, moved[0])

    def _mark(self, tensor: Tensor, axis: Axis) -> None:
        key = self._storages.key(tensor)
        if key is not None:
            self._marks[key] = (tensor.stride(axis.dim) * axis.inner, axis.samples)


def batch_size(batch: Any, *, second: bool = False) -> int:
    """Return how many samples ``batch`` holds, 0 where it holds no tensor.

    It is the size that all its tensors have in one of their first two dimensions, or else the first size of the first
    tensor, the ``second`` one where that is asked for. A list of maps of one sample each, as detectors take, counts.
    """
    first = batch[0] if isinstance(batch, list | tuple) and len(batch) else None
    if isinstance(first, list | tuple) and first and all(isinstance(t, Tensor) and t.ndim == 3 for t in first):
        return len(first)
    shapes = [tensor.shape[:2] for tensor in tensors_in(batch) if tensor.ndim]
    if not shapes:
        return 0
    shared = [size for size in chain(*shapes) if all(size in shape for shape in shapes)]
    if len(shapes) > 1 and len(set(shared)) == 1:
        return int(shared[0])
    if second:
        return int(next((shape[1] for shape in shapes if len(shape) > 1), 0))
    return int(shared[0] if shared else shapes[0][0])


def _carry(
    func: Any, args: Any, kwargs: dict[str, Any], tensor: Tensor, axis: Axis, out: Tensor, size: int
) -> Axis | None:
    """Return where the samples of ``tensor``, one of the inputs of ``func``, are in its output ``out``."""
    schema = compat.schema(func)
    name, dim, inner, samples = schema.name.removeprefix("aten::"), *axis
    named = {a.name: args[i] if i < len(args) else kwargs.get(a.name) for i, a in enumerate(schema.arguments)}
    along = [d % max(tensor.ndim, 1) for d in _listed(named.get("dim")) if isinstance(d, int)]
    to: int | None = dim
    if name in ("mm", "addmm", "bmm", "baddbmm"):
        right = tensor is named.get("mat2", named.get("batch2"))
        to = None if dim == tensor.ndim - (2 if right else 1) else dim  # summed over, or not
    elif name == "stack":
        to = dim + (_listed(named.get("dim") or 0)[0] % out.ndim <= dim)
    elif name == "cat" and dim in (along or [0]):
        samples = out.shape[dim] // inner if tensor.shape[dim] == samples * inner else 0
    elif name in ("index", "index_select") and tensor is named["self"]:
        at = [i for i, index in enumerate(_listed(named["indices"])) if index is not None] if name == "index" else along
        if dim in at:  # rows are chosen: each is a sample of its own, where it was one before
            to, samples = at[0], out.shape[at[0]] if inner == 1 and tensor.shape[dim] == samples else 0
        elif at[0] < dim:
            to = dim + out.ndim - tensor.ndim
    elif name == "index":
        to = dim + next(i for i, index in enumerate(_listed(named["indices"])) if index is not None)
    elif name.startswith(("scatter", "index_add")) and out.shape[dim] != tensor.shape[dim]:
        samples = size if out.shape[dim] == size else 0
    elif out.ndim < tensor.ndim and "dim" in named:
        to = None if dim in along or not along else dim - sum(d < dim for d in along)
    elif out.ndim > tensor.ndim and all(a in (1, b) for a, b in zip(tensor.shape[::-1], out.shape[::-1], strict=False)):
        to = dim if name == "embedding" else dim + out.ndim - tensor.ndim  # broadcast
    elif out.ndim < tensor.ndim or out.shape[dim] != tensor.shape[dim]:
        to = dim if dim < out.ndim and out.shape[dim] == tensor.shape[dim] else None
    fits = to is not None and to < out.ndim and samples > 0 and out.shape[to] % (samples * inner) == 0
    return Axis(to, inner, samples) if fits and to is not None else None


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [] if value is None else [value]
