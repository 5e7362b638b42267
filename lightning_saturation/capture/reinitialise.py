"""A model with weights as if it had never been trained, without a copy of the model and without touching it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call


def fresh_weights(model: nn.Module, *, seed: int = 0) -> tuple[dict[str, Tensor], list[str]]:
    """Return newly initialised parameters and buffers of ``model`` by name, and the names of parameters without any.

    Every module draws again as it does when it is made (``reset_parameters``), buffers such as the running means of
    batch norms included. What a model initialises elsewhere, in its own ``__init__`` for instance, cannot be drawn
    again and is named in the second list. ``model`` and the global random state stay as they are.
    """
    drawn: dict[str, Tensor] = {}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for name, module in model.named_modules():
            own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
            reset = "reset_parameters" if hasattr(module, "reset_parameters") else "_reset_parameters"
            if not own or not hasattr(module, reset):
                continue
            # A copy of the one module, on the CPU, whose generator is the one that was put aside.
            made = copy.deepcopy(module).cpu()
            getattr(made, reset)()
            prefix = f"{name}." if name else ""
            fresh = {**dict(made.named_parameters(recurse=False)), **dict(made.named_buffers(recurse=False))}
            drawn |= {prefix + key: fresh[key].detach().to(old) for key, old in own}
    kept = [name for name, _ in model.named_parameters() if name not in drawn]
    return drawn, kept


def with_weights(model: nn.Module, weights: dict[str, Tensor]) -> Callable[..., Any]:
    """Return ``model`` as a function that runs with ``weights`` in the place of its own; its hooks fire."""

    def call(*args: Any, **kwargs: Any) -> Any:
        # The model may have been moved since the weights were drawn.
        home = {name: tensor.device for name, tensor in (*model.named_parameters(), *model.named_buffers())}
        return functional_call(model, {name: w.to(home[name]) for name, w in weights.items()}, args, kwargs)

    return call
