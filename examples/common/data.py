"""Labelled images in memory, split into training and test images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .files import TRAIN, decode, find_images


@dataclass(frozen=True)
class Images:
    """Images (uint8, n × channels × height × width) and labels (int64, n) for training and testing.

    Loaders hand out float32 batches with each channel at mean 0 and variance 1 over the training images.
    """

    train_pixels: Tensor
    train_labels: Tensor
    test_pixels: Tensor
    test_labels: Tensor
    classes: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        channels, height, width = self.train_pixels.shape[1:]
        return channels, height, width

    def train_loader(self, batch_size: int = 128, *, seed: int | None = None) -> DataLoader:
        """Return shuffled training batches; ``seed`` fixes the order whatever else draws random numbers."""
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        return self._loader(self.train_pixels, self.train_labels, batch_size, shuffle=True, generator=generator)

    def test_loader(self, batch_size: int = 256) -> DataLoader:
        """Return the test batches, always in the same order."""
        return self._loader(self.test_pixels, self.test_labels, batch_size)

    def _loader(self, pixels: Tensor, labels: Tensor, batch_size: int, **options: object) -> DataLoader:
        data = _Batches(pixels, labels, *self.scale)
        return DataLoader(data, batch_size=min(batch_size, len(labels)), collate_fn=_as_it_is, **options)

    @cached_property
    def scale(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation (channels × 1 × 1) of the training images' channels, with which batches are normalised."""
        channels = [torch.var_mean(channel.float(), correction=0) for channel in self.train_pixels.unbind(1)]
        variance, mean = (torch.stack(numbers)[:, None, None] for numbers in zip(*channels, strict=True))
        return mean, variance.sqrt().clamp(min=1.0)

    def __str__(self) -> str:
        channels, height, width = self.shape
        return (
            f"{len(self.train_labels)} training and {len(self.test_labels)} test images of "
            f"{channels}×{height}×{width}, {len(self.classes)} classes"
        )


def images(
    path: str | Path | None = None,
    *,
    limit: int | None = None,
    size: int | None = None,
    classes: Sequence[str] | None = None,
    test_share: float = 0.2,
    seed: int = 0,
) -> Images:
    """Return scikit-learn's handwritten digits (``path=None``), or the images under a folder or in a zip.

    ``path`` holds ``class/image`` files, or ``train`` and ``test`` (folders or zips) that each hold them; without the
    latter the split is drawn per class from ``seed``. ``limit`` keeps so many images in all, an equal share of each
    class; ``classes`` keeps some classes only; ``size`` is the side in pixels to which images are cropped and scaled
    (default: 32 for files, 8 for the digits as they are). The second call with the same arguments decodes nothing.

    Raises FileNotFoundError where there is no such path, ValueError where it holds no images or a single class.
    """
    if not 0.0 < test_share < 1.0:
        raise ValueError(f"Expected `test_share` in (0, 1), got {test_share}.")
    if limit is not None and limit < 4:
        raise ValueError(f"Expected `limit` of at least 4 images, got {limit}.")
    if size is not None and size < 4:
        raise ValueError(f"Expected `size` of at least 4 pixels, got {size}.")
    parts = _digits(size) if path is None else find_images(Path(path))
    names = _chosen_classes(parts, classes)
    shares = {TRAIN: 1.0 - test_share, "test": test_share} if len(parts) > 1 else {TRAIN: 1.0}
    picked = {
        part: _first_of_each(by_class, names, limit and round(limit * shares[part])) for part, by_class in parts.items()
    }
    loaded = {part: (_pixels(entries, size), labels) for part, (entries, labels) in picked.items()}
    if len(loaded) == 1:
        pixels, labels = loaded[TRAIN]
        test = _held_out(labels, test_share, seed)
        return Images(pixels[~test], labels[~test], pixels[test], labels[test], names)
    return Images(*loaded[TRAIN], *loaded["test"], names)


class _Batches(Dataset):
    """A whole batch by one indexing: a Python loop over single images would cost more than a small network."""

    def __init__(self, pixels: Tensor, labels: Tensor, mean: Tensor, spread: Tensor) -> None:
        self.pixels, self.labels, self.mean, self.spread = pixels, labels, mean, spread

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        return (self.pixels[indices].float() - self.mean) / self.spread, self.labels[indices]

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        batch, label = self.__getitems__([index])
        return batch[0], label[0]


def _as_it_is(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return batch


def _digits(size: int | None) -> dict[str, dict[str, list[Tensor]]]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError('The digits need scikit-learn: pip install ".[examples]"') from error
    digits = load_digits()
    pixels = torch.from_numpy(digits.images * 15).to(torch.uint8)[:, None]  # 0..16 -> 0..240, exact
    if size is not None and size != pixels.shape[-1]:
        scaled = torch.nn.functional.interpolate(pixels.float(), size=(size, size), mode="bilinear", antialias=True)
        pixels = scaled.round().to(torch.uint8)
    by_class: dict[str, list[Tensor]] = {str(name): [] for name in digits.target_names}
    for image, label in zip(pixels, digits.target, strict=True):
        by_class[str(label)].append(image)
    return {TRAIN: by_class}


def _pixels(entries: list, size: int | None) -> Tensor:
    return torch.stack(entries) if isinstance(entries[0], Tensor) else decode(tuple(entries), size or 32)


def _chosen_classes(parts: dict[str, dict[str, list]], classes: Sequence[str] | None) -> tuple[str, ...]:
    known = sorted(set.intersection(*(set(by_class) for by_class in parts.values())))
    if unknown := sorted(set(classes or ()) - set(known)):
        raise ValueError(f"Expected `classes` among {known}, got {unknown}.")
    names = tuple(known if classes is None else dict.fromkeys(classes))
    if len(names) < 2:
        raise ValueError(f"Expected images of at least two classes (one folder each), got {list(names)}.")
    return names


def _first_of_each(by_class: dict[str, list], names: tuple[str, ...], limit: int | None) -> tuple[list, Tensor]:
    share = None if limit is None else max(2, limit // len(names))
    kept = [by_class[name][:share] for name in names]
    labels = torch.arange(len(names)).repeat_interleave(torch.tensor([len(entries) for entries in kept]))
    return [entry for entries in kept for entry in entries], labels


def _held_out(labels: Tensor, share: float, seed: int) -> Tensor:
    """Return a mask (n,) with ``share`` of each class, at least one image of it in and one out where it has two."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        where = (labels == label).nonzero()[:, 0]
        count = min(max(1, round(share * len(where))), len(where) - 1)
        mask[where[torch.randperm(len(where), generator=generator)[:count]]] = True
    return mask
