"""What a training came to, asked for behind it."""

from __future__ import annotations

from matplotlib.figure import Figure

from lightning_saturation.similarity.dynamics import LearningDynamics


class Reading:
    """How the layers approached their final form, once training has ended; a ``ValueError`` before."""

    dynamics: LearningDynamics | None

    def report(self) -> LearningDynamics:
        """Return the layers during training compared with those at its end."""
        dynamics = self.dynamics
        if dynamics is None or not dynamics.panes:
            raise ValueError("Expected a training that has ended with layers to compare, got none.")
        return dynamics

    def plot(self) -> Figure:
        """Return a matplotlib figure of the report: a pane for each share of training."""
        return self.report().plot()
