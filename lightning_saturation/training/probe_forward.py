"""Probes on their way through the module that a run trains, which is left as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor

from lightning_saturation.capture.evaluation import Forward, call_with
from lightning_saturation.capture.options import CaptureOptions
from lightning_saturation.capture.reinitialise import with_weights
from lightning_saturation.capture.represent import Rows, represent
from lightning_saturation.training.guard import Guard

# What a module says to a batch that is made for its steps.
_REFUSALS = (TypeError, ValueError, LookupError, AttributeError, NotImplementedError)


def represent_probes(
    trainer: Trainer,
    module: LightningModule,
    batches: Sequence[Any],
    options: CaptureOptions,
    *,
    guard: Guard,
    weights: Mapping[str, Tensor] | None = None,
    forward: Forward | None = None,
) -> Rows:
    """Return the rows of every layer over all ``batches``, in the run's precision, with ``weights`` if there are any.

    A batch goes through ``forward(module, batch)``, where that is given. Else it goes through the module's own
    ``forward``, as far as that takes it; where the module has none or it fails, through the validation or training step
    of a copy, which logs nothing and whose metrics and attributes are not the module's.
    """
    plugin = trainer.precision_plugin

    def rows(model: LightningModule, run: Callable[[Any], Any]) -> Rows:
        moved = (plugin.convert_input(move_data_to_device(batch, module.device)) for batch in batches)
        return represent(model, moved, options, forward=run)

    with plugin.forward_context():
        if forward is not None:
            model = module if weights is None else _twin(module, weights)
            return rows(model, partial(forward, model))
        if not is_overridden("forward", module):
            return rows(*_stepping(module, weights))
        own = module if weights is None else with_weights(module, dict(weights))
        try:
            return rows(module, lambda batch: call_with(own, batch, like=module))
        except Exception as error:
            try:
                found = rows(*_stepping(module, weights))
            except Exception:
                raise error from None
            if not isinstance(error, _REFUSALS):
                guard.tell("run its probes through `forward`, and took the step of a copy", error)
            return found


def weights_of(module: LightningModule) -> dict[str, Tensor]:
    """Return a copy of all parameters and buffers of ``module``, on the CPU."""
    tensors = (*module.named_parameters(), *module.named_buffers())
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors}


def _stepping(
    module: LightningModule, weights: Mapping[str, Tensor] | None
) -> tuple[LightningModule, Callable[[Any], Any]]:
    """Return a copy of ``module`` and its step as a function of a batch."""
    twin = _twin(module, weights)
    vars(twin).update(log=_nothing, log_dict=_nothing)
    if is_overridden("validation_step", module):
        return twin, lambda batch: twin.validation_step(batch, 0)
    if not module.automatic_optimization:
        raise NotImplementedError(
            "Expected a `forward` or `validation_step` that takes the probes; a `training_step` that optimises by"
            " itself cannot be run without training."
        )
    return twin, lambda batch: twin.training_step(batch, 0)


def _twin(module: LightningModule, weights: Mapping[str, Tensor] | None) -> LightningModule:
    """Return a copy of ``module``, with other ``weights`` if there are any."""
    twin = copy.deepcopy(module)
    if weights is not None:
        twin.load_state_dict(dict(weights), strict=False)
    return twin


def _nothing(*_: Any, **__: Any) -> None:
    """Log nothing."""
