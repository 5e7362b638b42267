"""Twenty ways to feed a Trainer, most of which notice when somebody else reads along."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, RandomSampler, Sampler

from tests.tiny import batches, data

SAMPLES = 32


@dataclass
class Feed:
    """Loaders, options of the Trainer, and what remembers how often it was asked."""

    train: Any
    val: Any = None
    options: dict[str, Any] = field(default_factory=dict)
    remembering: tuple[Any, ...] = ()


class Noisy(Dataset):
    """Rows with noise that ``draw`` makes at every access."""

    def __init__(self, draw: Callable[[], float], samples: int = SAMPLES) -> None:
        self.rows, self.draw = data(samples), draw

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        x, y = self.rows[index]
        return x + self.draw(), y


class Stream(IterableDataset):
    """Rows without a length; ``step`` says how far each pass moves the beginning of the next one."""

    def __init__(self, step: int = 0, samples: int = SAMPLES) -> None:
        self.rows, self.step, self.begin = data(samples), step, 0

    def __iter__(self) -> Iterator[Any]:
        order = [(self.begin + index) % len(self.rows) for index in range(len(self.rows))]
        self.begin += self.step
        return (self.rows[index] for index in order)


class Counting(Sampler):
    """Another order in every pass, by the number of passes so far."""

    def __init__(self) -> None:
        self.passes = 0

    def __len__(self) -> int:
        return SAMPLES

    def __iter__(self) -> Iterator[int]:
        self.passes += 1
        generator = torch.Generator().manual_seed(self.passes)
        return iter(torch.randperm(SAMPLES, generator=generator).tolist())


class Once(IterableDataset):
    """A queue that is empty once it was read, like a stream from a network; an epoch takes 16 rows of it."""

    def __init__(self, samples: int) -> None:
        self.queue = iter(list(data(samples)))

    def __iter__(self) -> Iterator[Any]:
        for _ in range(16):
            yield next(self.queue)


class Named(Dataset):
    """Rows by name, labels among them."""

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> dict[str, Any]:
        x, y = data()[index]
        return {"x": x, "labels": y}


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def shuffled() -> Feed:
    return Feed(batches(shuffle=True), batches(16))


def own_generator() -> Feed:
    generator = _generator()
    return Feed(DataLoader(data(), 8, shuffle=True, generator=generator), batches(16), remembering=(generator,))


def persistent_workers() -> Feed:
    return Feed(DataLoader(data(), 8, num_workers=1, persistent_workers=True))


def persistent_validation_workers() -> Feed:
    val = DataLoader(data(16), 8, shuffle=True, num_workers=1, persistent_workers=True)
    return Feed(batches(shuffle=True), val, {"num_sanity_val_steps": 0})


def sampler_of_batches() -> Feed:
    generator = _generator()
    sampler = BatchSampler(RandomSampler(range(SAMPLES), generator=generator), 8, drop_last=False)
    return Feed(DataLoader(data(), sampler=sampler, batch_size=None), remembering=(generator,))


def batch_sampler() -> Feed:
    generator = _generator()
    sampler = BatchSampler(RandomSampler(range(SAMPLES), generator=generator), 8, drop_last=False)
    return Feed(DataLoader(data(), batch_sampler=sampler), remembering=(generator,))


def numpy_in_data() -> Feed:
    generator = np.random.default_rng(3)
    noisy = Noisy(generator.normal)
    return Feed(DataLoader(noisy, 8), DataLoader(noisy, 8), remembering=(generator,))


def torch_in_data() -> Feed:
    generator = _generator()
    noisy = Noisy(lambda: float(torch.randn((), generator=generator)))
    return Feed(DataLoader(noisy, 8), DataLoader(noisy, 8), remembering=(generator,))


def global_generators_in_data() -> Feed:
    noisy = Noisy(lambda: np.random.rand() + float(torch.rand(())))
    return Feed(DataLoader(noisy, 8, shuffle=True), DataLoader(noisy, 8))


def pythons_generator_in_data() -> Feed:
    noisy = Noisy(random.random)
    return Feed(DataLoader(noisy, 8, shuffle=True), DataLoader(noisy, 8))


def stateful_stream() -> Feed:
    stream = Stream(step=5)
    return Feed(DataLoader(stream, 8), remembering=(stream,))


def stream_for_validation() -> Feed:
    stream = Stream(step=3, samples=16)
    return Feed(batches(shuffle=True), DataLoader(stream, 8), remembering=(stream,))


def sampler_that_counts() -> Feed:
    sampler = Counting()
    return Feed(DataLoader(data(), 8, sampler=sampler), remembering=(sampler,))


def combined() -> Feed:
    generator = _generator()
    two = {"first": DataLoader(data(), 8, shuffle=True, generator=generator), "second": batches(16, seed=1)}
    return Feed(CombinedLoader(two, "max_size_cycle"), remembering=(generator,))


def named() -> Feed:
    return Feed(DataLoader(Named(), 8, shuffle=True), DataLoader(Named(), 8))


def several_validations() -> Feed:
    generator = _generator()
    train, val = (DataLoader(data(), 8, shuffle=True, generator=generator) for _ in range(2))
    return Feed(train, val, {"val_check_interval": 0.5}, (generator,))


def limited() -> Feed:
    stream, sampler = Stream(step=5), Counting()
    train, val = DataLoader(data(), 8, sampler=sampler), DataLoader(stream, 8)
    return Feed(train, val, {"limit_train_batches": 3, "limit_val_batches": 1}, (stream, sampler))


def accumulated() -> Feed:
    return Feed(batches(shuffle=True), batches(16, shuffle=True), {"accumulate_grad_batches": 2})


def reloaded() -> Feed:
    sampler = Counting()
    options = {"reload_dataloaders_every_n_epochs": 1, "check_val_every_n_epoch": 2}
    return Feed(DataLoader(data(), 8, sampler=sampler), batches(16, shuffle=True), options, (sampler,))


def queue() -> Feed:
    return Feed(DataLoader(Once(48), 8), options={"limit_val_batches": 0})


def several_loaders() -> Feed:
    generator = _generator()
    val = [DataLoader(data(16, seed), 8, shuffle=True, generator=generator) for seed in (0, 1)]
    return Feed(batches(shuffle=True), val, {"num_sanity_val_steps": 1}, (generator,))


FEEDS: dict[str, Callable[[], Feed]] = {
    make.__name__: make
    for make in (
        shuffled, own_generator, persistent_workers, persistent_validation_workers, sampler_of_batches, batch_sampler,
        numpy_in_data, torch_in_data, global_generators_in_data, pythons_generator_in_data, stateful_stream,
        stream_for_validation, sampler_that_counts, combined, named, several_validations, limited, accumulated,
        reloaded, queue, several_loaders,
    )
}  # fmt: skip


def memory(thing: Any) -> Any:
    """Return how far ``thing`` has moved on, as something that can be compared."""
    if isinstance(thing, torch.Generator):
        return thing.get_state().tolist()
    if isinstance(thing, np.random.Generator):
        return str(thing.bit_generator.state)
    return {key: value for key, value in vars(thing).items() if isinstance(value, int)}
