"""The samples that a run is probed with: the same ones, on every rank, from start to end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from lightning_saturation.metrics.ranks import gather


def probe_batches(trainer: Trainer, probes: Iterable[Any] | None, samples: int) -> list[Any]:
    """Return batches with up to ``samples`` samples on the CPU: ``probes``, or the first ones for validation.

    Without validation they are training batches. Nothing random is drawn that the run would miss. Each rank adds its
    share, and all get all. Raises ``ValueError`` where there is no sample.
    """
    if isinstance(probes, Tensor):
        probes = torch.split(probes, 256)
    if probes is None:
        loader = _loader(trainer)
        with isolate_rng(), _own_generators_kept(loader):
            mine = _first(loader, -(-samples // max(trainer.world_size, 1)))
        batches = [batch for share in gather(mine) for batch in share]
    else:
        batches = _first(probes, samples)
    if not batches:
        raise ValueError("Expected `probes` or validation data with at least one sample, got none.")
    return batches


def _loader(trainer: Trainer) -> Any:
    loaders: Any = trainer.val_dataloaders or trainer.train_dataloader
    if isinstance(loaders, CombinedLoader):
        loaders = loaders.iterables
    while isinstance(loaders, list | tuple | Mapping):
        loaders = next(iter(loaders.values() if isinstance(loaders, Mapping) else loaders), None)
    return () if loaders is None else loaders


@contextmanager
def _own_generators_kept(loader: Any) -> Iterator[None]:
    """Leave the generators that a loader draws its order from as they are: ``isolate_rng`` knows global ones only."""
    owners = (loader, getattr(loader, "sampler", None))
    generators = [g for owner in owners if isinstance(g := getattr(owner, "generator", None), torch.Generator)]
    states = [generator.get_state() for generator in generators]
    try:
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def _first(batches: Iterable[Any], samples: int) -> list[Any]:
    """Return the first batches with ``samples`` samples in all; the last one is cut."""
    kept: list[Any] = []
    for batch in batches:
        if samples <= 0:
            break
        kept.append(_cut(batch, samples))
        samples -= _count(batch)
    return kept


def _cut(batch: Any, samples: int) -> Any:
    if isinstance(batch, Tensor):
        return batch[:samples].detach().cpu()
    if isinstance(batch, Mapping):
        return {key: _cut(value, samples) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        return [_cut(batch[0], samples)]  # labels may follow; the model takes the first
    return batch


def _count(batch: Any) -> int:
    if isinstance(batch, Tensor):
        return len(batch)
    inside = batch.values() if isinstance(batch, Mapping) else batch[:1] if isinstance(batch, list | tuple) else ()
    return max((_count(value) for value in inside), default=1)
