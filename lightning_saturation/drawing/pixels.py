"""A figure as pixels."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def pixels(figure: Figure) -> np.ndarray:
    """Return the figure as (height, width, 3), uint8; whichever canvas the figure has stays as it is."""
    from PIL import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return np.asarray(Image.open(buffer).convert("RGB"))
