"""Getting rows out of compiled code: an operator that the compiler keeps as it is."""

from __future__ import annotations

import sys
from itertools import count
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from lightning_saturation.capture.capture import Capture

# Compiled code holds a number, not the object, so that it keeps nothing alive and outlives a capture harmlessly. No
# number comes twice, as those of `id` would.
_CAPTURES: WeakValueDictionary[int, Capture] = WeakValueDictionary()
_NUMBERS = count()

# Replayed CUDA graphs would not run the Python below, and count wrongly without a word. (The tag is younger than 2.4.)
_TAGS: dict[str, Any] = {"tags": torch.Tag.cudagraph_unsafe} if hasattr(torch.Tag, "cudagraph_unsafe") else {}


# The token is "mutated" so that the compiler neither drops the call nor changes the order of two of them.
@torch.library.custom_op("lightning_saturation::record", mutates_args=("token",), **_TAGS)
def record(rows: Tensor, token: Tensor, capture: int, layer: int) -> None:
    """Deliver ``rows`` of layer number ``layer`` to the capture with that number, if it is still there."""
    owner = _CAPTURES.get(capture)
    if owner is not None:
        owner.deliver(layer, rows)


@record.register_fake
def _(rows: Tensor, token: Tensor, capture: int, layer: int) -> None:
    return None


def register(capture: Capture) -> int:
    """Return a new number under which compiled code finds ``capture``, until ``unregister``."""
    number = next(_NUMBERS)
    _CAPTURES[number] = capture
    return number


def unregister(number: int) -> None:
    """Make compiled code that still holds ``number`` deliver nowhere."""
    _CAPTURES.pop(number, None)


def forget_compiled(model: nn.Module) -> None:
    """Make a compiled ``model`` compile anew at its next call.

    Compiled code does not look at hooks: those attached after its first run would never fire, and those removed would
    stay in it. A function compiled around the model leaves no trace on it, so all that ran compiled is forgotten.
    """
    codes = getattr(sys.modules.get("torch._dynamo.convert_frame"), "output_codes", None)
    if getattr(codes, "seen", None) or any(_is_compiled(module) for module in model.modules()):
        torch.compiler.reset()


def is_exporting() -> bool:
    """Return whether the model runs to be exported: an exported program outlives every capture."""
    asks = getattr(torch.compiler, "is_exporting", None)  # younger than torch 2.4
    return asks is not None and bool(asks())


def _is_compiled(module: nn.Module) -> bool:
    # `module.compile()`, `torch.compile(module)`, and a LightningModule that was unwrapped from the latter.
    return (
        getattr(module, "_compiled_call_impl", None) is not None
        or isinstance(module, torch._dynamo.OptimizedModule)
        or getattr(module, "_compiler_ctx", None) is not None
    )
