"""The only code that touches the user's model."""

from lightning_saturation.capture.capture import Capture, capture
from lightning_saturation.capture.select import select_layers

__all__ = ["Capture", "capture", "select_layers"]
