"""Image files of a folder or a zip: which there are, of which class, and their pixels."""

from __future__ import annotations

import io
import zipfile
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

TRAIN = "train"
_TEST = {"test", "val", "valid", "validation"}
_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}


class Entry(NamedTuple):
    """One image file; ``inside`` is its name in the zip ``path``, or empty for a plain file."""

    path: Path
    inside: str = ""
    changed: float = 0.0

    def __str__(self) -> str:
        return f"{self.path}:{self.inside}" if self.inside else str(self.path)


def find_images(path: Path) -> dict[str, dict[str, list[Entry]]]:
    """Return ``{"train": {class: entries}}``, and ``"test"`` beside it where the files come with a split."""
    if not path.exists():
        raise FileNotFoundError(f"Expected `path` to be a folder or zip of class/image files, found nothing at {path}.")
    if path.is_dir() and (zips := {kind: _zip_of(path, kind) for kind in ("train", "test")}) and all(zips.values()):
        return {kind: _only_part(find_images(archive)) for kind, archive in zips.items() if archive}
    files = _listing(path)
    if not files:
        kinds = ", ".join(sorted(_SUFFIXES))
        raise ValueError(f"Expected class/image files ({kinds}) in `path`, found no image in {path}.")
    while len({name.parts[0] for name in files}) == 1 and min(len(name.parts) for name in files) > 2:
        files = {PurePosixPath(*name.parts[1:]): entry for name, entry in files.items()}
    tops = {name.parts[0].lower() for name in files}
    if TRAIN in tops and tops - {TRAIN} and tops - {TRAIN} <= _TEST and min(len(name.parts) for name in files) > 2:
        inner = {kind: _below(files, train=kind == TRAIN) for kind in (TRAIN, "test")}
        return {kind: _by_class(part, path) for kind, part in inner.items()}
    return {TRAIN: _by_class(files, path)}


@lru_cache(maxsize=4)
def decode(entries: tuple[Entry, ...], size: int) -> Tensor:
    """Return the pixels (n, 3, size, size), uint8 RGB; an image of another shape is cropped at its centre and scaled.

    Raises ValueError naming the file that is no image.
    """
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError as error:
        raise ImportError('Image files need Pillow: pip install ".[examples]"') from error
    pixels = np.empty((len(entries), size, size, 3), dtype=np.uint8)
    archives: dict[Path, zipfile.ZipFile] = {}
    try:
        for row, entry in zip(pixels, entries, strict=True):
            if entry.inside and entry.path not in archives:
                archives[entry.path] = zipfile.ZipFile(entry.path)
            raw = archives[entry.path].read(entry.inside) if entry.inside else entry.path.read_bytes()
            try:
                image = Image.open(io.BytesIO(raw))
                image.draft("RGB", (2 * size, 2 * size))  # a large JPEG is decoded at a fraction of its size
                image = image.convert("RGB")
            except (UnidentifiedImageError, Image.DecompressionBombError, OSError) as error:
                raise ValueError(f"Expected an image, could not read {entry}: {error}") from error
            row[:] = image if image.size == (size, size) else ImageOps.fit(image, (size, size))
    finally:
        for archive in archives.values():
            archive.close()
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


def _listing(path: Path) -> dict[PurePosixPath, Entry]:
    changed = path.stat().st_mtime
    if path.is_dir():
        found = {PurePosixPath(p.relative_to(path).as_posix()): p for p in sorted(path.rglob("*")) if p.is_file()}
        entries = {name: Entry(file, changed=file.stat().st_mtime) for name, file in found.items()}
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            entries = {PurePosixPath(name): Entry(path, name, changed) for name in sorted(archive.namelist())}
    else:
        raise ValueError(f"Expected `path` to be a folder or a zip file, got {path}.")
    return {
        name: entry
        for name, entry in entries.items()
        if name.suffix.lower() in _SUFFIXES and not any(part.startswith((".", "__MACOSX")) for part in name.parts)
    }


def _by_class(files: dict[PurePosixPath, Entry], path: Path) -> dict[str, list[Entry]]:
    if loose := next((name for name in files if len(name.parts) < 2), None):
        raise ValueError(f"Expected every image in the folder of its class, found {loose} directly in {path}.")
    by_class: dict[str, list[Entry]] = {}
    for name, entry in files.items():
        by_class.setdefault(name.parts[0], []).append(entry)
    return by_class


def _below(files: dict[PurePosixPath, Entry], *, train: bool) -> dict[PurePosixPath, Entry]:
    return {
        PurePosixPath(*name.parts[1:]): entry
        for name, entry in files.items()
        if (name.parts[0].lower() == TRAIN) == train
    }


def _zip_of(path: Path, kind: str) -> Path | None:
    archive = path / f"{kind}.zip"
    return archive if archive.is_file() else None


def _only_part(parts: dict[str, dict[str, list[Entry]]]) -> dict[str, list[Entry]]:
    return parts[TRAIN]
