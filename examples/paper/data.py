"""The data of the paper's runs: decoded once into a file, in batches whose order and crops depend on the epoch only."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import torch
from common import Images, images
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from paper.settings import CAT_DOG, PHOTOS, RANDOM_LABELS, UNBALANCED, Settings

DIGITS = "digits"
"""In place of a path: scikit-learn's handwritten digits, scaled to 32 pixels, for machines without the photographs."""


def cached(path: str, cache: Path, *, size: int = 32) -> Images:
    """Return the images under ``path``, decoded by the first call into a file in ``cache`` that later ones map."""
    source = None if path == DIGITS else Path(path)
    stamps = [] if source is None else sorted(int(file.stat().st_mtime) for file in (source, *source.glob("*.zip")))
    file = cache / f"{source.stem if source else DIGITS}-{size}-{'-'.join(map(str, stamps)) or 0}.pt"
    if not file.exists():
        found = images(source, size=size)
        cache.mkdir(parents=True, exist_ok=True)
        beside = file.with_suffix(f".{os.getpid()}")
        torch.save(vars(found), beside)
        beside.replace(file)  # whole or not at all, also where two runs begin together
    return Images(**torch.load(file, mmap=True))


def chosen(everything: Images, settings: Settings) -> Images:
    """Return the part of ``everything`` that the run's data set stands for; test images keep all their labels."""
    draw = torch.Generator().manual_seed(settings.seed)
    names = everything.classes
    if settings.data == CAT_DOG:
        names = ("cat", "dog") if {"cat", "dog"} <= set(names) else names[:2]
    shares = torch.ones(len(names))
    if settings.data == UNBALANCED:  # section 3.1: from 5 % of the images to 15 %, at random to the classes
        shares = torch.linspace(0.05, 0.15, len(names))[torch.randperm(len(names), generator=draw)] / 0.15
    each = None if settings.limit is None else max(2, settings.limit // len(names))
    train = [_of(everything.train_labels, everything.classes.index(name))[:each] for name in names]
    train = [rows[: max(2, round(float(share) * len(rows)))] for rows, share in zip(train, shares, strict=True)]
    test = [_of(everything.test_labels, everything.classes.index(name))[:each] for name in names]
    labels = _numbered(train)
    if settings.data == RANDOM_LABELS:
        labels = labels[torch.randperm(len(labels), generator=draw)]
    if settings.data in (PHOTOS, RANDOM_LABELS) and each is None:
        return Images(everything.train_pixels, labels, everything.test_pixels, _numbered(test), names)
    pixels = everything.train_pixels[torch.cat(train)], everything.test_pixels[torch.cat(test)]
    return Images(pixels[0], labels, pixels[1], _numbered(test), names)


class Batches(Dataset):
    """Batches of images, normalised; with a ``generator``, set by :class:`EpochOrder`, shifted and mirrored."""

    def __init__(self, pixels: Tensor, labels: Tensor, scale: tuple[Tensor, Tensor], *, augment: bool = False) -> None:
        self.pixels, self.labels, self.scale, self.augment = pixels, labels, scale, augment
        self.generator: torch.Generator | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        pixels = self.pixels[indices]
        if self.augment and self.generator is not None:
            pixels = augmented(pixels, self.generator)
        mean, deviation = self.scale
        return pixels.float().sub_(mean).div_(deviation), self.labels[indices]


class Windows(Dataset):
    """Windows of ``context`` characters (int64) and, as labels, the characters that follow each of them."""

    def __init__(self, text: Tensor, *, context: int, stride: int) -> None:
        self.windows = text.unfold(0, context + 1, stride)
        self.generator: torch.Generator | None = None

    def __len__(self) -> int:
        return len(self.windows)

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        rows = self.windows[indices]
        return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()


class EpochOrder(Sampler):
    """A new order in every epoch which, like the epoch's crops, depends on seed and epoch and on nothing before.

    So a run that was killed goes on with the batches that it would have had.
    """

    def __init__(self, data: Batches | Windows, seed: int) -> None:
        self.data, self.seed, self.epoch = data, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator[int]:
        self.data.generator = torch.Generator().manual_seed(1_000_003 * self.seed + self.epoch)
        return iter(torch.randperm(len(self.data), generator=self.data.generator).tolist())


def augmented(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Return each image shifted by up to 4 pixels over zeros, half of them mirrored (section 3.1)."""
    count, side = len(pixels), pixels.shape[-1]
    windows = torch.nn.functional.pad(pixels, (4, 4, 4, 4)).unfold(2, side, 1).unfold(3, side, 1)
    rows, columns = torch.randint(0, 9, (2, count), generator=generator)
    cropped = windows[torch.arange(count), :, rows, columns]
    mirrored = torch.rand(count, generator=generator) < 0.5
    return torch.where(mirrored[:, None, None, None], cropped.flip(3), cropped)


def loader(data: Batches | Windows, batch_size: int, *, seed: int | None = None) -> DataLoader:
    """Return batches of ``data``, as they lie without a ``seed``, else in the orders of :class:`EpochOrder`."""
    order = None if seed is None else EpochOrder(data, seed)
    return DataLoader(data, batch_size=batch_size, sampler=order, collate_fn=_as_it_is)


def text() -> tuple[Tensor, Tensor, str]:
    """Return the characters (int64) of the language reference that comes with Python, 90 % and 10 %, and which are."""
    from pydoc_data.topics import topics

    written = "\n".join(topics[name] for name in sorted(topics))
    alphabet = "".join(sorted(set(written)))
    numbers = {character: number for number, character in enumerate(alphabet)}
    characters = torch.tensor([numbers[character] for character in written])
    split = int(0.9 * len(characters))
    return characters[:split], characters[split:], alphabet


def _as_it_is(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return batch


def _of(labels: Tensor, label: int) -> Tensor:
    return (labels == label).nonzero()[:, 0]


def _numbered(parts: list[Tensor]) -> Tensor:
    return torch.arange(len(parts)).repeat_interleave(torch.tensor([len(part) for part in parts]))
