"""Pictures of one pixel: hundreds of runs draw here, and what is to be seen is tested elsewhere."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from matplotlib.figure import Figure

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture(autouse=True)
def _small_pictures(monkeypatch):
    def savefig(self, where, **options):
        Path(where).write_bytes(PIXEL) if isinstance(where, str | Path) else where.write(PIXEL)

    monkeypatch.setattr(Figure, "savefig", savefig)
