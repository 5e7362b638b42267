"""Reports and other findings written to whatever loggers a run has, by what each of them can take.

No logger is needed, none is ever the reason for a run to end, and Lightning is not imported: any object with
``log_metrics`` will do. The functions here know no ranks: call them on the first rank only.
"""

from lightning_saturation.loggers.files import save_reports
from lightning_saturation.loggers.reports import write_reports, write_window
from lightning_saturation.loggers.verbs import write_figure, write_scalars, write_table, write_text

__all__ = [
    "save_reports",
    "write_figure",
    "write_reports",
    "write_scalars",
    "write_table",
    "write_text",
    "write_window",
]
