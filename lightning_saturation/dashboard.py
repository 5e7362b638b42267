"""A W&B workspace that lays the runs of a project side by side: what is full, what settles, what it is worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Section, Workspace


def dashboard(
    entity: str,
    project: str,
    *,
    metric: str = "val/accuracy",
    parameters: Sequence[str] = (),
    name: str = "saturation",
    stage: str = "train",
) -> Workspace:
    """Return a workspace with a section that compares runs and one that shows a run; ``save()`` writes it to W&B.

    ``metric`` is what the user's module logs, ``parameters`` are entries of the runs' configurations to compare by,
    such as ``"width"``; ``name`` is that of the monitor, ``stage`` whose windows are shown. An ``ImportError`` without
    the extra ``dashboard``.
    """
    try:
        from wandb_workspaces import workspaces
    except ImportError as error:
        needed = "Expected `wandb-workspaces` to be installed: pip install 'lightning-saturation[dashboard]'."
        raise ImportError(needed) from error

    key = f"{name}/{stage}"
    pinned = [f"summary:{column}" for column in (metric, f"{key}/average", f"{key}/max", f"{key}/verdict")]
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=f"Saturation ({stage})",
        sections=[_compare(key, metric, parameters), _one_run(key, table=f"{name}/table")],
        settings=workspaces.WorkspaceSettings(x_axis="epoch"),
        runset_settings=workspaces.RunsetSettings(
            pinned_columns=[*pinned, *(f"config:{parameter}.value" for parameter in parameters)]
        ),
    )


def _compare(key: str, metric: str, parameters: Sequence[str]) -> Section:
    """Return the section in which every run is a point or a line."""
    from wandb_workspaces.reports import v2 as panels
    from wandb_workspaces.workspaces import Section

    average, score = panels.SummaryMetric(f"{key}/average"), panels.SummaryMetric(metric)
    columns = [*map(panels.Config, parameters), average, panels.SummaryMetric(f"{key}/max"), score]
    profiles = panels.CustomChart(
        query={"summaryTable": {"tableKey": f"{key}/profile_table"}},
        chart_name="wandb/line/v0",
        chart_fields={"x": "depth", "y": "saturation"},
        chart_strings={"title": "Last saturation of each layer over relative depth"},
    )
    shown = [
        panels.ScatterPlot(title=f"Average saturation and {metric}", x=average, y=score),
        profiles,
        panels.ParallelCoordinatesPlot(columns=[panels.ParallelCoordinatesPlotColumn(column) for column in columns]),
        panels.LinePlot(title="Average saturation", x="epoch", y=[f"{key}/average"]),
        panels.LinePlot(title=metric, x="epoch", y=[metric]),
        panels.ParameterImportancePlot(with_respect_to=metric),
    ]
    return Section("Saturation: compare runs", is_open=True, panels=shown)


def _one_run(key: str, *, table: str) -> Section:
    """Return the section that is read one run at a time."""
    from wandb_workspaces.reports import v2 as panels
    from wandb_workspaces.workspaces import Section

    shown = [
        panels.MediaBrowser(title="What it comes to", num_columns=1, media_keys=[f"{key}/picture"]),
        panels.MediaBrowser(title="Layers over time", num_columns=1, media_keys=[f"{key}/heatmap"]),
        panels.LinePlot(title="Layers", x="epoch", metric_regex=f"^{key}/layers/", max_runs_to_show=1),
        panels.WeavePanelSummaryTable(table_name=table),
    ]
    return Section("Saturation: one run", is_open=True, panels=shown)
