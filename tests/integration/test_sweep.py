"""The sweep example: handed out by a W&B server to W&B's own agent."""

import json
import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))

import programs

from tests.integration.wandb_server import ENTITY, PROJECT, SWEEP, SweepServer

CHART = "saturation/train/profile"
TRAIN = programs.ROOT / "examples" / "sweep" / "train.py"
needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds stray processes through /proc")


def _sweep_file(folder: Path, program: Path = TRAIN, **parameters: list) -> Path:
    """Write the example's own YAML with other parameters, few images, and the program as a path that holds anywhere."""
    sweep = yaml.safe_load(TRAIN.with_name("sweep.yaml").read_text())
    sweep["program"] = str(program)
    sweep["command"] += ["--limit", "200"]
    sweep["parameters"] = {name: {"values": values} for name, values in parameters.items()}
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(sweep))
    return path


def _where(server: SweepServer, folder: Path) -> dict:
    return {"server": server.url, "folder": folder, "entity": ENTITY, "project": PROJECT}


@needs_proc
@pytest.mark.timeout(900)
def test_a_sweep_with_its_agent_and_one_trial_that_the_server_stops(tmp_path):
    """Two trials, as each takes seconds to begin: the first is stopped, the second runs to its end."""
    sweep = _sweep_file(tmp_path, model=["mlp"], width=[0.25, 0.5], epochs=[3, 5000])
    trials = [{"model": "mlp", "width": width, "epochs": epochs} for width, epochs in ((0.25, 5000), (0.5, 3))]

    def some_epochs_of_the_first(run: str) -> bool:
        # The core sends what it has after 15 seconds; what it has written by then tells sooner that the trial is busy.
        logs = tmp_path.glob(f"results/sweep/wandb/run-*-{run}/*.wandb")
        return run == "trial0" and any(log.stat().st_size > 30_000 for log in logs)

    with (
        SweepServer(trials, stop=some_epochs_of_the_first) as server,
        programs.agent(sweep, **_where(server, tmp_path)) as (process, token),
    ):
        output, _ = process.communicate(timeout=programs.PATIENCE)
        assert process.returncode == 0, output
        assert programs.alive(token) == {}
    stopped, whole = (server.runs[f"trial{number}"] for number in range(2))

    assert [command["type"] for command in server.commands if command["type"] != "stop"] == ["run", "run", "exit"]
    assert {"type": "stop", "run_id": "trial0"} in server.commands
    assert server.sweep["early_terminate"]["type"] == "hyperband"
    for record, trial in zip((stopped, whole), trials, strict=True):
        assert record["sweep"] == SWEEP
        assert {name: record["config"][name]["value"] for name in trial} == trial

    # hyperband counts one iteration per log of the metric
    assert server.sweep["metric"]["name"] == "val/accuracy"
    assert len(_rows(whole, "val/accuracy")) == len(_rows(whole, "saturation/train/average")) == 3
    assert 1 <= len(_rows(stopped, "val/accuracy")) < 5000

    for record in (stopped, whole):
        layers = [key for key in record["summary"] if key.startswith("saturation/train/layers/network.")]
        assert len(layers) == 3
        assert 0 < record["summary"]["saturation/train/average"] <= 1
        table = record["summary"]["saturation/table"]
        assert table["_type"] == "table-file"
        assert table["nrows"] == len(_rows(record, "saturation/train/average")) * 3
        for kind in ("picture", "heatmap"):
            assert record["summary"][f"saturation/train/{kind}"]["_type"] == "image-file"
        assert record["summary"]["saturation/train/tail_layers"] == 0
        assert record["config"]["saturation"]["value"]["delta"] == 0.99
        assert "saturation" in record["summary"]["saturation/train/diagnosis"]

    # One chart, the same for all runs, which asks the server for the table and the name of every run in view.
    charts = [record["config"]["_wandb"]["value"]["visualize"][CHART]["panel_config"] for record in (stopped, whole)]
    chart = charts[0]
    assert charts == 2 * [chart]
    assert chart["fieldSettings"] == {"x": "depth", "y": "saturation", "stroke": None}
    (query,) = chart["userQuery"]["queryFields"]
    fields = {field["name"]: field for field in query["fields"]}
    assert {"id", "name", "summaryTable"} <= set(fields)
    assert fields["summaryTable"]["args"] == [{"name": "tableKey", "value": f"{CHART}_table"}]
    lines = [_line(server, name) for name in server.runs]
    assert [[point["depth"] for point in line] for line in lines] == 2 * [[0, 0.5, 1]]
    assert len({tuple(point["saturation"] for point in line) for line in lines}) == 2

    # only the trial that ran to its end has a result
    folder = tmp_path / "results" / "sweep"
    assert [json.loads(path.read_text())["config"] for path in folder.glob("trials/*.json")] == [trials[1]]
    assert (folder / "scatter.png").read_bytes().startswith(b"\x89PNG")


class _TestFailedError(Exception):
    pass


@needs_proc
@pytest.mark.timeout(900)
def test_a_test_that_fails_leaves_no_process_behind(tmp_path):
    trial = tmp_path / "trial.py"
    trial.write_text("import time, wandb; wandb.init(); time.sleep(600)")
    sweep = _sweep_file(tmp_path, program=trial, model=["mlp"], epochs=[5000])
    tokens = []

    def fails_while_a_trial_runs(server: SweepServer) -> None:
        with programs.agent(sweep, **_where(server, tmp_path)) as (_, token):
            tokens.append(token)
            assert programs.wait_until(lambda: programs.running(token, trial.name, "wandb-core"))
            raise _TestFailedError

    with SweepServer([{"model": "mlp", "epochs": 5000}], stop=lambda run: False) as server:
        with pytest.raises(_TestFailedError):
            fails_while_a_trial_runs(server)
        assert programs.alive(tokens[0]) == {}


def _rows(record: dict, key: str) -> list[dict]:
    return [row for row in record["history"] if key in row]


def _line(server: SweepServer, run: str) -> list[dict]:
    """Return the points of the chart's line of ``run``, from the table that it sent."""
    table = server.runs[run]["summary"][f"{CHART}_table"]["path"]
    (content,) = [json.loads(body) for path, body in server.uploads.items() if f"/{run}/{table}" in path]
    return [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]
