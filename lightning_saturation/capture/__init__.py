"""The only code that touches the user's model."""

from lightning_saturation.capture.capture import Capture, capture
from lightning_saturation.capture.outputs import check_output_layers, choose_output_layers
from lightning_saturation.capture.select import select_layers
from lightning_saturation.capture.tracker import LayerTracker
from lightning_saturation.capture.window import LayerWindow

__all__ = [
    "Capture",
    "LayerTracker",
    "LayerWindow",
    "capture",
    "check_output_layers",
    "choose_output_layers",
    "select_layers",
]
