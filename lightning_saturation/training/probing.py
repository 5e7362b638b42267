"""A run's probes, the same on every rank from start to end, and the weights with which a comparison begins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import LightningModule, Trainer
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from lightning_saturation.capture.evaluation import Forward
from lightning_saturation.capture.options import CaptureOptions
from lightning_saturation.capture.represent import Rows
from lightning_saturation.covariance.ranks import gather
from lightning_saturation.training.guard import Guard
from lightning_saturation.training.probe_forward import represent_probes, weights_of

MOST_CARRIED = 2**26
"""Bytes of probes that a checkpoint may hold."""

_PASSED_BATCH = 256


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

    def rows(self, trainer: Trainer, module: LightningModule, weights: Mapping[str, Tensor] | None = None) -> Rows:
        """Return the rows of every layer, of ``module`` as it is or with other ``weights``."""
        return represent_probes(
            trainer, module, self._batches, self._options, guard=self._guard, weights=weights, forward=self._forward
        )

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
