"""What every callback shares: when windows open and close, what may fail, what is logged, kept and resumed."""

from lightning_saturation.training.layer_monitor import LayerMonitor
from lightning_saturation.training.monitor import Measured, Monitor

__all__ = ["LayerMonitor", "Measured", "Monitor"]
