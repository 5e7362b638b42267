"""What a monitor's windows come to, asked for by stage."""

from __future__ import annotations

from matplotlib.figure import Figure

from lightning_saturation.drawing.windows import windows_of
from lightning_saturation.saturation.plots.verdict import verdict_figure
from lightning_saturation.saturation.report.diagnosis import Diagnosis
from lightning_saturation.saturation.report.report import SaturationReport
from lightning_saturation.training.task_metrics import TaskMetrics


class Reading:
    """The last report, the diagnosis and the picture of a stage.

    Without a name, the stage is training, or the one seen last where there was no training. A ``ValueError`` where no
    window of the stage has closed.
    """

    _metrics: TaskMetrics

    @property
    def reports(self) -> list[SaturationReport]:
        """The report of every closed window, oldest first."""
        raise NotImplementedError

    def report(self, stage: str | None = None) -> SaturationReport:
        """Return the last report of ``stage``."""
        return windows_of(self.reports, stage)[-1]

    def diagnose(self, stage: str | None = None) -> Diagnosis:
        """Return what the windows of ``stage`` suggest; see ``SaturationReport.diagnose``."""
        windows = windows_of(self.reports, stage)
        return windows[-1].diagnose(history=windows)

    def plot(self, stage: str | None = None, *, metric: str | None = None) -> Figure:
        """Return a matplotlib figure of ``stage``: the verdict, a bar for each layer, average and metric over time.

        ``metric`` names what the module logs and the picture draws; None chooses an accuracy where there is one, else
        another metric or a loss, of validation rather than of training. A ``ValueError`` for one that was not logged.
        """
        windows = windows_of(self.reports, stage)
        return verdict_figure(windows, metric=self._metrics.curve(metric))
