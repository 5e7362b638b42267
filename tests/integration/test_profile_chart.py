"""A sweep of three runs on a W&B server: one chart, one line for each run, each with its name."""

import json
import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))

import programs

from tests.integration.wandb_server import ENTITY, PROJECT, SweepServer

TRIAL = """
import sys
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_saturation import SaturationMonitor


class Net(LightningModule):
    def __init__(self, width):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 6), nn.ReLU(), nn.Linear(6, 3))

    def training_step(self, batch):
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


torch.manual_seed(0)
logger = WandbLogger(save_dir=".")
width = logger.experiment.config["width"]
data = TensorDataset(torch.randn(64, 8), torch.randint(0, 3, (64,)))
trainer = Trainer(max_epochs=2, logger=logger, callbacks=[SaturationMonitor()], accelerator="cpu",
                  enable_checkpointing=False, enable_progress_bar=False, log_every_n_steps=1)
trainer.fit(Net(width), DataLoader(data, batch_size=16))
"""
WIDTHS = (4, 16, 40)
CHART = "saturation/train/profile"


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds stray processes through /proc")
@pytest.mark.timeout(900)
def test_three_runs_are_three_named_lines_of_one_chart(tmp_path):
    (tmp_path / "trial.py").write_text(TRIAL)
    command = ["${env}", "${interpreter}", "${program}"]
    sweep = {"program": str(tmp_path / "trial.py"), "method": "grid", "command": command}
    sweep["parameters"] = {"width": {"values": list(WIDTHS)}}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    where = {"entity": ENTITY, "project": PROJECT, "folder": tmp_path}
    with (
        SweepServer([{"width": width} for width in WIDTHS], stop=lambda run: False) as server,
        programs.agent(tmp_path / "sweep.yaml", server=server.url, **where) as (process, _),
    ):
        output, _ = process.communicate(timeout=programs.PATIENCE)
        assert process.returncode == 0, output
    assert list(server.runs) == ["trial0", "trial1", "trial2"]
    charts, lines = [], []
    for name, run in server.runs.items():
        charts.append(run["config"]["_wandb"]["value"]["visualize"][CHART]["panel_config"])
        table = run["summary"][f"{CHART}_table"]["path"]
        (content,) = [json.loads(body) for path, body in server.uploads.items() if f"/{name}/{table}" in path]
        lines.append([dict(zip(content["columns"], row, strict=True)) for row in content["data"]])
        assert run["config"]["saturation"]["value"]["delta"] == 0.99
    # The same chart for all, which asks the server for the table and the name of every run in view.
    assert charts[0] == charts[1] == charts[2]
    assert charts[0]["fieldSettings"] == {"x": "depth", "y": "saturation", "stroke": None}
    (query,) = charts[0]["userQuery"]["queryFields"]
    fields = {field["name"]: field for field in query["fields"]}
    assert {"id", "name", "summaryTable"} <= set(fields)
    assert fields["summaryTable"]["args"] == [{"name": "tableKey", "value": f"{CHART}_table"}]
    assert [[point["depth"] for point in line] for line in lines] == 3 * [[0, 0.5, 1]]
    assert len({line[0]["saturation"] for line in lines}) == 3
