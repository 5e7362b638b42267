"""What PyTorch does not say in public, or not in every version: the one place to look when a new one comes out."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode

# Replayed CUDA graphs would not run an operator's Python, and silently count wrongly. The tag is not in
# every version.
UNSAFE_FOR_CUDA_GRAPHS: dict[str, Any] = (
    {"tags": (torch.Tag.cudagraph_unsafe,)} if hasattr(torch.Tag, "cudagraph_unsafe") else {}
)


def in_backward() -> bool:
    """Return whether this runs inside of a backward, as activation checkpointing's second forward does.

    Nothing public tells; gradients being enabled or not does not either.
    """
    return bool(torch._C._current_graph_task_id() != -1)


def in_transform() -> bool:
    """Return whether this runs inside of ``vmap`` or a ``grad`` transform, whose outputs are not data."""
    return torch._C._functorch.maybe_current_level() is not None


def is_no_data() -> bool:
    """Return whether what runs here is no data: recomputed in a backward, inside of a transform, or traced."""
    tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return tracing or in_backward() or in_transform()


def is_exporting() -> bool:
    """Return whether the model runs to be exported: an exported program outlives every capture."""
    # The compiler of torch 2.7 and 2.8 takes `torch.compiler.is_exporting()` to be true of whatever it compiles.
    return bool(torch.compiler._is_exporting_flag)


def is_compiled(module: nn.Module) -> bool:
    """Return whether ``module`` itself runs compiled."""
    # `module.compile()`, `torch.compile(module)`, and a LightningModule that was unwrapped from the latter.
    return (
        getattr(module, "_compiled_call_impl", None) is not None
        or isinstance(module, torch._dynamo.OptimizedModule)
        or getattr(module, "_compiler_ctx", None) is not None
    )


def anything_was_compiled() -> bool:
    """Return whether any function has run compiled in this process."""
    codes = getattr(sys.modules.get("torch._dynamo.convert_frame"), "output_codes", None)
    return bool(getattr(codes, "seen", None))


def schema(operator: Any) -> torch.FunctionSchema:
    """Return name and arguments of an operator, and which of them it writes into."""
    found: torch.FunctionSchema = operator._schema
    return found


def storage_reference(tensor: Tensor) -> Any:
    """Return a weak reference to the storage of ``tensor``, with its address as ``cdata``; None where it has none."""
    try:
        return StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]
    except (NotImplementedError, RuntimeError, ValueError):  # the last of a lazy parameter
        return None


# Whether a compiled function that meets a mode, such as that of a look, may run compiled all the same.
MODES_LET_COMPILE = hasattr(TorchDispatchMode, "ignore_compile_internals")


def run_eagerly() -> AbstractContextManager[None]:
    """Return a context that runs compiled functions as written: under a mode they may never be compiled again."""
    eagerly: AbstractContextManager[None] = torch.compiler.set_stance("force_eager")
    return eagerly


def why_opaque(model: nn.Module) -> str | None:
    """Return why ``model`` shows no layer to hooks, None where nothing speaks against it."""
    for module in model.modules():
        if isinstance(module, torch.jit.ScriptModule):
            return "TorchScript runs no hooks; pass the module that it was made of"
        home = type(module).__module__
        if ".quantized" in home:
            return "quantised layers put out integers; measure the model before it is quantised"
        if isinstance(module, torch.fx.GraphModule):
            return "what was exported or traced has no layers left; pass the module that it was made of"
    return None


def runs_compiled(model: nn.Module) -> bool:
    """Return whether any part of ``model``, or anything that ran, is compiled."""
    return anything_was_compiled() or any(is_compiled(module) for module in model.modules())


HISTORY = {"compiled": False}
"""Whether anything was ``compiled`` before we made the compiler forget it, of which it keeps no trace."""


def forget_compiled() -> None:
    """Make all that ran compiled compile again at its next call."""
    HISTORY["compiled"] = True
    torch.compiler.reset()


def may_run_compiled(model: nn.Module) -> bool:
    """Return whether any part of ``model``, anything that ran, or any function that is yet to run, may be compiled."""
    backends = getattr(sys.modules.get("torch._dynamo.eval_frame"), "cached_backends", {})
    waiting = any(callable(backend) for backend in backends.values())  # what is never compiled has None there
    return waiting or HISTORY["compiled"] or runs_compiled(model)
