"""The command that builds a W&B workspace: what it asks for, and what a server gets."""

from __future__ import annotations

import json
import runpy
import sys

import pytest
import wandb

from lightning_saturation.__main__ import main
from tests.integration.wandb_server import ENTITY, PROJECT, SweepServer

pytest.importorskip("wandb_workspaces")


def panels(spec):
    """Return the panels of each section by their kind."""
    sections = spec["section"]["panelBankConfig"]["sections"]
    return {
        section["name"]: [(panel["viewType"], panel["config"]) for panel in section["panels"]] for section in sections
    }


def of_kind(found, kind):
    return [config for view, config in found if view == kind]


@pytest.fixture
def written(tmp_path):
    def write(*arguments):
        path = tmp_path / "workspace.json"
        assert main(["dashboard", "me/mine", "--spec", str(path), *arguments]) == 0
        return json.loads(path.read_text())

    return write


def test_the_specification_names_what_monitors_log(written):
    view = written("--metric", "val/f1", "--parameter", "width", "--parameter", "depth")
    assert (view["entity"], view["project"]) == ("me", "mine")
    compare, one = panels(view["spec"]).values()
    (scatter,) = of_kind(compare, "Scatter Plot")
    assert (scatter["xAxis"], scatter["yAxis"]) == ("summary:saturation/train/average", "summary:val/f1")
    (coordinates,) = of_kind(compare, "Parallel Coordinates Plot")
    assert [column["accessor"] for column in coordinates["columns"]] == [
        "config:width.value",
        "config:depth.value",
        "summary:saturation/train/average",
        "summary:saturation/train/max",
        "summary:val/f1",
    ]
    (importance,) = of_kind(compare, "Parameter Importance")
    assert importance["targetKey"] == "val/f1"
    lines = [config["metrics"] for config in of_kind(compare, "Run History Line Plot")]
    assert lines == [["saturation/train/average"], ["val/f1"]]
    assert [config["mediaKeys"] for config in of_kind(one, "Media Browser")] == [
        ["saturation/train/picture"],
        ["saturation/train/heatmap"],
    ]
    (layers,) = of_kind(one, "Run History Line Plot")
    assert layers["metricRegex"] == "^saturation/train/layers/"


def test_one_chart_asks_for_the_profile_and_the_name_of_each_run(written):
    compare = panels(written()["spec"])["Saturation: compare runs"]
    (chart,) = of_kind(compare, "Vega2")
    assert chart["panelDefId"] == "wandb/line/v0"
    assert chart["fieldSettings"] == {"x": "depth", "y": "saturation"}
    (query,) = chart["userQuery"]["queryFields"]
    assert {"id", "name", "summaryTable"} == {field["name"] for field in query["fields"]}
    (table,) = [field for field in query["fields"] if field["name"] == "summaryTable"]
    assert table["args"][0]["value"] == "saturation/train/profile_table"


def test_another_monitor_and_stage(written):
    text = json.dumps(written("--name", "encoder", "--stage", "val"))
    assert "encoder/val/profile_table" in text
    assert "encoder/table" in text
    assert "saturation/train" not in text


@pytest.mark.parametrize("project", ["mine", "me/", "/mine", "me/mine/too"])
def test_a_project_without_entity_is_refused(project, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["dashboard", project])
    assert ended.value.code == 2
    assert f"expected ENTITY/PROJECT, got {project!r}" in capsys.readouterr().err


def test_without_the_extra_it_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    with pytest.raises(SystemExit) as ended:
        main(["dashboard", "me/mine"])
    assert ended.value.code == 2
    assert "pip install 'lightning-saturation[dashboard]'" in capsys.readouterr().err


@pytest.fixture
def _wandb_of_its_own():
    """W&B remembers the first server of a process: none of before, and none left behind."""
    wandb.teardown()
    yield
    wandb.teardown()


@pytest.mark.usefixtures("_wandb_of_its_own")
@pytest.mark.parametrize("silent", ["false", "true"])
def test_the_command_saves_the_workspace_on_the_server_and_prints_where(tmp_path, monkeypatch, capsys, silent):
    with SweepServer([], stop=lambda run: False) as server:
        settings = {"BASE_URL": server.url, "API_KEY": "0" * 40, "DIR": str(tmp_path), "SILENT": silent}
        for name, value in settings.items():
            monkeypatch.setenv(f"WANDB_{name}", value)
        wandb.setup()  # what it prints is decided here, for the whole process
        monkeypatch.setattr(sys, "argv", ["lightning_saturation", "dashboard", f"{ENTITY}/{PROJECT}"])
        monkeypatch.delitem(sys.modules, "lightning_saturation.__main__")  # which this file has imported
        with pytest.raises(SystemExit) as ended:
            runpy.run_module("lightning_saturation", run_name="__main__")
    assert ended.value.code == 0, server.unknown
    (view,) = server.views
    assert (view["entityName"], view["projectName"], view["type"]) == (ENTITY, PROJECT, "project-view")
    assert len(panels(json.loads(view["spec"]))) == 2
    assert f"{ENTITY}/{PROJECT}?nw=" in capsys.readouterr().out
