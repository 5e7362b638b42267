"""The samples that a run is probed with: the same ones, on every rank, from start to end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from lightning_saturation.covariance.ranks import gather

MOST_CARRIED = 2**26
"""Bytes of probes that a checkpoint may hold."""

_PASSED_BATCH = 256


class ProbeBatches:
    """Up to ``samples`` samples on the CPU: those that the user ``passed``, or the first that the run itself delivers.

    No loader is ever iterated over: it may be the one that the run is using, and would give the run other batches. Each
    rank takes its share of what it gets, and ``agree`` gives all of them to all.
    """

    def __init__(self, passed: Iterable[Any] | None, samples: int) -> None:
        self.samples = samples
        self.batches: list[Any] = []
        self._left = samples
        if passed is not None:
            for batch in torch.split(passed, _PASSED_BATCH) if isinstance(passed, Tensor) else passed:
                if self.take(batch):
                    break
            self._left = 0

    @property
    def total(self) -> int:
        """How many samples there are."""
        return sum(map(count, self.batches))

    @property
    def are_complete(self) -> bool:
        """Whether no more samples are wanted of this rank."""
        return self._left <= 0

    def share(self, world: int) -> None:
        """Want no more than one of ``world`` ranks' share."""
        self._left = -(-self.samples // max(world, 1))

    def take(self, batch: Any) -> bool:
        """Take of ``batch`` what is still wanted, a copy, and return whether that was the last."""
        if not self.are_complete:
            self.batches.append(_copied(batch, self._left))
            self._left -= count(batch)
        return self.are_complete

    def agree(self, group: Any) -> None:
        """Give the samples of each rank to all ranks; a collective call."""
        self.batches = [batch for share in gather(self.batches, group) for batch in share]
        self._left = 0

    def to_state(self) -> dict[str, Any] | None:
        """Return the samples for a checkpoint, None where they are too many bytes or no plain tensors."""
        sizes: list[int] = []
        plain = all(_measure(batch, sizes) for batch in self.batches)
        return {"batches": self.batches, "wanted": self._left} if plain and sum(sizes) <= MOST_CARRIED else None

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up the samples of an earlier run, whatever ``samples`` says now."""
        self.batches, self._left = list(state["batches"]), state["wanted"]


def count(batch: Any) -> int:
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
    whole = count(batch)

    def cut(tensor: Tensor) -> Tensor:
        kept = tensor[:most] if whole > most and tensor.ndim and len(tensor) == whole else tensor
        return kept.detach().cpu().clone()

    return move_data_to_device(apply_to_collection(batch, Tensor, cut), torch.device("cpu"))


def _measure(batch: Any, sizes: list[int]) -> bool:
    """Add the bytes of the tensors in ``batch`` to ``sizes`` and return whether a checkpoint can hold all of it."""
    if isinstance(batch, Tensor):
        sizes.append(batch.nbytes)
        return True
    if type(batch) is dict:
        return all(_measure(value, sizes) for value in batch.values())
    if type(batch) in (list, tuple):
        return all(_measure(value, sizes) for value in batch)
    return batch is None or isinstance(batch, bool | int | float | str)
