"""When: the Trainer's side of everything."""

from lightning_saturation.callbacks.monitor import SaturationMonitor
from lightning_saturation.callbacks.stopping import SaturationStopping

__all__ = ["SaturationMonitor", "SaturationStopping"]
