"""What a window of saturation says: plain data in, plain data out."""

from lightning_saturation.report.layer import LayerStatistics
from lightning_saturation.report.report import SaturationReport
from lightning_saturation.report.series import saturation_series

__all__ = ["LayerStatistics", "SaturationReport", "saturation_series"]
