"""A run's probes, the same on every rank from start to end, and their way through the module, which stays as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from lightning_saturation.capture.evaluation import Forward, call_with, with_weights
from lightning_saturation.capture.represent import Rows, represent
from lightning_saturation.capture.select import CaptureOptions
from lightning_saturation.covariance.ranks import gather
from lightning_saturation.training.guard import Guard

MOST_CARRIED = 2**26
"""Bytes of probes that a checkpoint may hold."""

_PASSED_BATCH = 256

# What a module says to a batch that is made for its steps.
_REFUSALS = (TypeError, ValueError, LookupError, AttributeError, NotImplementedError)


class Probing:
    """Shows the layers up to ``samples`` samples: those that the user ``passed``, or the first that the run delivers.

    No loader is ever iterated over: it may be the one that the run is using, and would give the run other batches. Each
    rank takes its share of what it gets, and all get all. The run delivers its samples while it trains already: a copy
    of the weights before the first step waits for them.
    """

    def __init__(
        self,
        passed: Iterable[Any] | None,
        samples: int,
        options: CaptureOptions,
        *,
        forward: Forward | None,
        guard: Guard,
    ) -> None:
        self._passed, self._samples = passed, samples
        self._options, self._forward, self._guard = options, forward, guard
        self._batches: list[Any] = []  # on the CPU
        self._left = samples  # how many are still wanted of this rank
        self._baseline: dict[str, Tensor] | None = None

    def begin(self, trainer: Trainer, module: LightningModule, *, anew: bool, compare: bool) -> None:
        """Begin a run, ``anew`` or where a checkpoint left off; ``compare`` says that its first weights are wanted."""
        if anew:
            self._take_passed()
        if compare and (anew or self._baseline is None):
            self._baseline = weights_of(module)
        if self._passed is None and not self._batches:
            self._left = -(-self._samples // max(trainer.world_size, 1))

    def watch(self, batch: Any) -> None:
        """Take of a ``batch`` of training what is still wanted."""
        if self._baseline is not None:
            self._take(batch)

    @property
    def is_due(self) -> bool:
        """Whether the first weights still wait for probes."""
        return self._baseline is not None

    def first_rows(self, trainer: Trainer, module: LightningModule, group: Any) -> Rows:
        """Return the rows of the first weights, now that there are probes; once, and a collective call."""
        if self._passed is None:
            self._batches, self._left = [batch for share in gather(self._batches, group) for batch in share], 0
        if not self._batches:
            raise ValueError("Expected `probes` or training data with at least one sample, got none.")
        rows = self.rows(trainer, module, self._baseline)
        self._baseline = None
        return rows

    def rows(self, trainer: Trainer, module: LightningModule, weights: dict[str, Tensor] | None = None) -> Rows:
        """Return the rows of every layer, of ``module`` as it is or with other ``weights``, in the run's precision.

        A batch goes through ``forward(module, batch)``, where that is given. Else it goes through the module's own
        ``forward``, as far as that takes it; where the module has none or it fails, through the validation or training
        step of a copy, which logs nothing and whose metrics and attributes are not the module's.
        """
        plugin = trainer.precision_plugin

        def rows(model: LightningModule, run: Callable[[Any], Any]) -> Rows:
            moved = (plugin.convert_input(move_data_to_device(batch, module.device)) for batch in self._batches)
            return represent(model, moved, self._options, forward=run)

        with plugin.forward_context():
            if self._forward is not None:
                model = module if weights is None else _twin(module, weights)
                return rows(model, partial(self._forward, model))
            if not is_overridden("forward", module):
                return rows(*_stepping(module, weights))
            own = module if weights is None else with_weights(module, weights)
            try:
                return rows(module, lambda batch: call_with(own, batch, like=module))
            except Exception as error:
                try:
                    found = rows(*_stepping(module, weights))
                except Exception:
                    raise error from None
                if not isinstance(error, _REFUSALS):
                    self._guard.tell("run its probes through `forward`, and took the step of a copy", error)
                return found

    def to_state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: the run's own probes, where it can hold them, and weights that still wait."""
        sizes: list[int] = []
        fits = self._passed is None and all(_measure(batch, sizes) for batch in self._batches)
        probes = {"batches": self._batches, "wanted": self._left} if fits and sum(sizes) <= MOST_CARRIED else None
        return {"probes": probes, "baseline": self._baseline}

    def load_state(self, state: Mapping[str, Any], *, samples: int | None) -> bool:
        """Go on where ``state`` was written, and return whether the probes are those of its rows, ``samples`` many."""
        self._baseline = state.get("baseline")
        self._take_passed()
        if self._passed is None and state.get("probes"):
            self._batches, self._left = list(state["probes"]["batches"]), state["probes"]["wanted"]
            return True
        return samples is None or samples == sum(map(_count, self._batches))

    def _take_passed(self) -> None:
        """Begin with what was passed, or with nothing."""
        self._batches, self._left, passed = [], self._samples, self._passed
        if passed is not None:
            for batch in torch.split(passed, _PASSED_BATCH) if isinstance(passed, Tensor) else passed:
                self._take(batch)
                if self._left <= 0:
                    break
            self._left = 0

    def _take(self, batch: Any) -> None:
        if self._left > 0:
            self._batches.append(_copied(batch, self._left))
            self._left -= _count(batch)


def _count(batch: Any) -> int:
    """Return how many samples ``batch`` holds: the length of its first tensor."""
    first = _first_tensor(batch)
    return len(first) if first is not None and first.ndim else 1


def _first_tensor(batch: Any) -> Tensor | None:
    if isinstance(batch, Tensor):
        return batch
    inside = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, list | tuple) else ()
    return next((found for each in inside if (found := _first_tensor(each)) is not None), None)


def _copied(batch: Any, most: int) -> Any:
    """Return a copy of the first ``most`` samples of ``batch``, whatever it is made of."""
    whole = _count(batch)

    def cut(tensor: Tensor) -> Tensor:
        kept = tensor[:most] if whole > most and tensor.ndim and len(tensor) == whole else tensor
        return kept.detach().cpu().clone()

    return move_data_to_device(apply_to_collection(batch, Tensor, cut), torch.device("cpu"))


def _measure(batch: Any, sizes: list[int]) -> bool:
    """Add the bytes of the tensors in ``batch`` to ``sizes`` and return whether a checkpoint can hold all of it."""
    if isinstance(batch, Tensor):
        sizes.append(batch.nbytes)
        return True
    if type(batch) in (dict, list, tuple):
        return all(_measure(value, sizes) for value in (batch.values() if isinstance(batch, dict) else batch))
    return batch is None or isinstance(batch, bool | int | float | str)


def weights_of(module: LightningModule) -> dict[str, Tensor]:
    """Return a copy of all parameters and buffers of ``module``, on the CPU."""
    tensors = (*module.named_parameters(), *module.named_buffers())
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors}


def _stepping(module: LightningModule, weights: dict[str, Tensor] | None) -> tuple[Any, Callable[[Any], Any]]:
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


def _twin(module: LightningModule, weights: dict[str, Tensor] | None) -> LightningModule:
    """Return a copy of ``module``, with other ``weights`` if there are any."""
    twin = copy.deepcopy(module)
    if weights is not None:
        twin.load_state_dict(weights, strict=False)
    return twin


def _nothing(*_: Any, **__: Any) -> None:
    """Log nothing."""
