"""Getting rows out of compiled code: an operator that the compiler keeps as it is."""

# No `from __future__ import annotations`: torch 2.4 reads the operator's types from real ones.
from itertools import count
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from lightning_saturation.capture import compat

if TYPE_CHECKING:
    from lightning_saturation.capture.capture import Capture

# Compiled code holds a number, not the object, so that it keeps nothing alive and outlives a capture harmlessly. No
# number comes twice, as those of `id` would.
_CAPTURES: "WeakValueDictionary[int, Capture]" = WeakValueDictionary()
_NUMBERS = count()


# The token is "mutated" so that the compiler neither drops the call nor changes the order of two of them.
@torch.library.custom_op("lightning_saturation::record", mutates_args=("token",), **compat.UNSAFE_FOR_CUDA_GRAPHS)
def record(rows: Tensor, token: Tensor, capture: int, layer: int) -> None:
    """Deliver ``rows`` of layer number ``layer`` to the capture with that number, if it is still there."""
    owner = _CAPTURES.get(capture)
    if owner is not None:
        owner.deliver(layer, rows)


@record.register_fake
def _(rows: Tensor, token: Tensor, capture: int, layer: int) -> None:
    return None


def register(capture: "Capture") -> int:
    """Return a new number under which compiled code finds ``capture``, until ``unregister``."""
    number = next(_NUMBERS)
    _CAPTURES[number] = capture
    return number


def unregister(number: int) -> None:
    """Make compiled code that still holds ``number`` deliver nowhere."""
    _CAPTURES.pop(number, None)


def forget_compiled(model: nn.Module) -> None:
    """Make a compiled ``model`` compile again at its next call.

    Compiled code does not look at hooks: those attached after its first run would never fire, and those removed would
    stay in it. A function compiled around the model leaves no trace on it, so all that ran compiled is forgotten.
    """
    if compat.runs_compiled(model):
        compat.forget_compiled()
