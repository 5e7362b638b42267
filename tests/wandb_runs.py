"""What a real offline W&B run wrote, read from its transaction log."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_BLOCK = 32 * 1024
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


@dataclass
class Run:
    """History rows in the order written, the last summary, the configuration, and the folder with the media."""

    folder: Path
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None

    def rows(self, key: str) -> list[dict[str, Any]]:
        """Return the history rows that hold ``key``."""
        return [row for row in self.history if key in row]

    def media(self, key: str) -> Path:
        """Return the last file logged under ``key`` (the first file of a list of images)."""
        value = self.rows(key)[-1][key]
        return self.folder / "files" / (value["path"] if "path" in value else value["filenames"][0])

    def table(self, key: str) -> list[dict[str, Any]]:
        """Return the rows of the last table logged under ``key`` as dicts."""
        content = json.loads(self.media(key).read_text(), parse_constant=_refuse)
        return [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]

    def chart(self, key: str) -> dict[str, Any]:
        """Return the configuration of the chart ``key``."""
        return self.config["_wandb"]["visualize"][key]


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def read_runs(folder: Path) -> list[Run]:
    """Return every offline run under ``folder``, oldest first; call ``wandb.teardown()`` before."""
    files = sorted(folder.glob("**/offline-run-*/run-*.wandb"), key=lambda path: path.stat().st_ctime_ns)
    return [_read(path) for path in files]


def _read(path: Path) -> Run:
    from wandb.proto.wandb_internal_pb2 import Record

    run = Run(path.parent)
    for message in _messages(path.read_bytes()):
        record = Record.FromString(message)
        kind = record.WhichOneof("record_type")
        if kind == "history":
            run.history.append(_items({}, record.history.item))
        elif kind == "summary":
            _items(run.summary, record.summary.update)
        elif kind in ("config", "run"):
            _items(run.config, record.config.update if kind == "config" else record.run.config.update)
        elif kind == "exit":
            run.exit_code = record.exit.exit_code
    return run


def _messages(content: bytes) -> Iterator[bytes]:
    """Yield the messages of a LevelDB log: blocks of 32 KiB, each message in one or more chunks."""
    position, message = 7, b""  # the file starts with seven bytes of W&B's own
    while position + 7 <= len(content):
        if _BLOCK - position % _BLOCK < 7:  # too little for a chunk's head is left in this block
            position += _BLOCK - position % _BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        chunk = content[position + 7 : position + 7 + length]
        position += 7 + length
        message = chunk if kind in (_FULL, _FIRST) else message + chunk
        if kind in (_FULL, _LAST):
            yield message


def _items(target: dict[str, Any], items: Any) -> dict[str, Any]:
    for item in items:
        *path, last = list(item.nested_key) or [item.key]
        place = target
        for key in path:
            place = place.setdefault(key, {})
        place[last] = json.loads(item.value_json)
    return target
