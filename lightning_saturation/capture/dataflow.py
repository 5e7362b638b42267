"""Which layers feed which, as far as operators tell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_saturation.capture import compat
from lightning_saturation.capture.storages import Storages, tensors_in

# Bit 0 of a storage's bits: its values depend on data or noise. Bit i + 1: on layer i, without a layer in between.
_DATA = 1
# What draws random numbers for dropout, fused attentions whether or not they drop anything.
_DROPPING = ("bernoulli", "dropout", "attention")


class DataFlow:
    """What each of the layers called ``names`` was seen to read, over any number of steps.

    Every storage has a set of bits: which layers its values come from, without another layer between, and whether they
    depend on data. An operator gives its outputs the union of its inputs' bits, a layer replaces them by its own.
    Storages, not tensors, so that views and operators in place need no rules, and below autograd, so that frozen
    layers, ``no_grad``, ``.data``, checkpointing and functions of a user's own cut nothing. What ``detach`` cuts while
    gradients are taken feeds nothing.
    """

    def __init__(self, names: Sequence[str], own: Iterable[Tensor]) -> None:
        self._names = tuple(names)
        self.storages = Storages()
        self._weights = [*own]
        self.unlearn()
        self.forget()

    def unlearn(self) -> None:
        """Drop what is known of layers."""
        self._read = [0] * len(self._names)  # by layer
        self._called: dict[int, None] = {}  # in the order of first completion
        self._differentiable = 0

    def forget(self) -> None:
        """Drop what is known of tensors, at the end of a step; what is known of layers stays."""
        self.storages.forget()
        self._bits: dict[int, int] = {}
        self._frames: list[int] = []
        self._own = {self.storages.key(tensor) for tensor in self._weights}

    def note(self, func: Any, given: Sequence[Tensor], written: Sequence[Tensor], out: Any) -> None:
        """Take in that the operator ``func`` made ``out`` of ``given``, some of which it may have ``written`` into."""
        name = compat.schema(func).name
        bits = 0
        for tensor in given:
            bits |= self._bits_of(tensor)
        if torch.Tag.nondeterministic_seeded in func.tags and not any(each in name for each in _DROPPING):
            bits |= _DATA  # noise is data, such as a generator's; what dropout draws is not
        if self._frames:
            self._frames[-1] |= bits
        if not given and "empty" in name:
            return  # somebody outside of torch may write into it
        keys = {self.storages.key(tensor) for tensor in given}
        for tensor in (*tensors_in(out), *written):
            key = self.storages.key(tensor)
            if key is None or key in self._own:
                continue
            if key not in keys:
                self._bits[key] = bits
            elif any(part is tensor for part in written):
                self._bits[key] = self._bits.get(key, 0) | bits

    def enter(self) -> None:
        """Take in that a layer begins."""
        self._frames.append(0)

    def leave(self, index: int, out: Any) -> None:
        """Take in that layer number ``index`` put out ``out``."""
        bits = self._frames.pop() if self._frames else 0
        self._called.setdefault(index)
        for tensor in tensors_in(out):
            if not bits:
                bits |= self._bits_of(tensor)  # it ran without an operator of its own
            if tensor.requires_grad:
                self._differentiable |= 2 << index
        self._read[index] |= bits
        for tensor in tensors_in(out):
            if (key := self.storages.key(tensor)) is not None:
                self._bits[key] = (2 << index) | bits & _DATA

    def _bits_of(self, tensor: Tensor) -> int:
        key = self.storages.key(tensor)
        if key in self._own or key is None:
            return 0
        bits = self._bits.get(key, _DATA)  # what was there before the step is data
        if not (tensor.is_floating_point() or tensor.is_complex()):
            return bits & _DATA  # a choice, not a value
        if torch.is_grad_enabled() and not tensor.requires_grad:
            bits &= ~self._differentiable  # detached
        return bits

    @property
    def ran(self) -> tuple[str, ...]:
        """The layers that ran, each behind those that feed it; in a circle, and where it is open, as called."""
        called = list(self._called)
        below = {a: sum(1 << b for b in called if b != a and self._feeds(a, b)) for a in called}
        for middle in called:  # transitive closure
            for layer in called:
                if below[layer] >> middle & 1:
                    below[layer] |= below[middle]
        above = {b: sum(1 << a for a in called if below[a] >> b & 1) for b in called}
        left, order = sum(1 << a for a in called), []
        while called:
            # Those that feed each other are called one after the other.
            following = next(a for a in called if not above[a] & ~below[a] & left & ~(1 << a))
            called.remove(following)
            order.append(self._names[following])
            left &= ~(1 << following)
        return tuple(order)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The layers that feed no other, in the order of ``ran``; the last one where all feed others."""
        feeding = {a for a in self._called for b in self._called if a != b and self._feeds(a, b)}
        ends = [self._names[a] for a in self._called if a not in feeding and self._names[a] not in self.constant]
        order = self.ran
        return tuple(name for name in order if name in ends) or order[-1:]

    @property
    def constant(self) -> tuple[str, ...]:
        """The layers whose outputs depend on no data."""
        return tuple(self._names[index] for index in self._called if not self._read[index] & _DATA)

    def _feeds(self, a: int, b: int) -> bool:
        return bool(self._read[b] >> (a + 1) & 1)
