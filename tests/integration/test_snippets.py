"""Every block of Python and YAML in README and docs runs as it stands there, on networks and data that are small."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import lightning
import pytest
import torch
import yaml
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.cli import LightningCLI
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_saturation
from lightning_saturation import SaturationMonitor, SaturationStopping
from tests.sweeping.networks import Small, loader
from tests.tiny import quiet, trainer

pytestmark = [*quiet, pytest.mark.filterwarnings("ignore:.*skip_none parameter was deprecated")]
ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


class Convolutions(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        for number, (ins, outs) in enumerate([(1, 3), (3, 4), (4, 4), (4, 4)], start=1):
            setattr(self, f"conv{number}", nn.Conv2d(ins, outs, 3, padding=1))
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        for number in range(1, 5):
            x = torch.relu(getattr(self, f"conv{number}")(x))
        return self.head(x.mean((2, 3)))

    def training_step(self, batch, _):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, _):
        self.log("val/loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Squeezed(nn.Module):
    """The names of a SqueezeNet."""

    def __init__(self) -> None:
        super().__init__()
        fire = nn.ModuleDict({"expand3x3": nn.Conv2d(3, 2, 3)})
        fire.forward = lambda x: fire["expand3x3"](x)
        self.features = nn.Sequential(nn.AvgPool2d(32), *(nn.Identity() for _ in range(11)), fire)

    def forward(self, x):
        return self.features(x)


class Reader(nn.Module):
    """What ``transformers`` calls a classifier, as far as a training step sees it."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.encoder, self.head = nn.Embedding(9, 6), nn.Linear(6, 5), nn.Linear(5, 2)

    def forward(self, input_ids, attention_mask, labels):
        tokens = torch.relu(self.encoder(self.embedding(input_ids)))
        logits = self.head((tokens * attention_mask[..., None]).mean(1))
        return SimpleNamespace(loss=nn.functional.cross_entropy(logits, labels))


def images() -> DataLoader:
    generator = torch.Generator().manual_seed(0)
    return DataLoader(TensorDataset(torch.randn(96, 1, 6, 6, generator=generator), torch.arange(96) % 3), batch_size=32)


def texts() -> DataLoader:
    rows = [
        {"input_ids": torch.arange(4), "attention_mask": torch.tensor([1, 1, 1, i % 2]), "labels": torch.tensor(i % 2)}
        for i in range(16)
    ]
    return DataLoader(rows, batch_size=8)


def one_of_the_trials(trial, grid, **options):
    grid = {name: values[:1] for name, values in grid.items()}
    small = {"trainer": {"max_epochs": 1, "accelerator": "cpu"}, "workers": 1, "progress": False}
    return lightning_saturation.sweeping.sweep.sweep(trial, grid, **{**options, **small})


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name)
def test_python(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lightning, "Trainer", partial(trainer_of, tmp_path))
    monkeypatch.setattr(lightning_saturation, "sweep", one_of_the_trials)
    torch.manual_seed(0)
    scope = {name: getattr(lightning_saturation, name) for name in lightning_saturation.__all__} | {
        "__name__": "__main__", "torch": torch, "LightningModule": LightningModule, "Trainer": lightning.Trainer,
        "EarlyStopping": EarlyStopping, "ModelCheckpoint": ModelCheckpoint,
        "model": Squeezed() if page.stem == "operator_spectra" else Convolutions(), "loader": images(),
        "data": images(), "model_a": Convolutions(), "model_b": Convolutions(),
        "MyModule": lambda **config: Small(config["width"]), "MyData": lambda: (loader(0), loader(1)),
        "evaluate": lambda model: [model(x) for x, _ in images()],
    }  # fmt: skip
    for block in blocks(page, "python"):
        text = {"model": Reader(), "loader": texts()} if "TextClassifier" in block else {}
        exec(compile(block, str(page), "exec"), {**scope, **text} if text else scope)
    if page.stem in ("README", "index"):
        assert (tmp_path / "saturation.png").exists()
        assert "Diagnosis (train, epoch 2)" in capsys.readouterr().out


def trainer_of(folder, *, callbacks, **options):
    saves = any(isinstance(callback, ModelCheckpoint) for callback in callbacks)
    return trainer(*callbacks, default_root_dir=folder, enable_checkpointing=saves, **{"max_epochs": 3, **options})


def test_yaml(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["mine.py"])
    (block,) = blocks(ROOT / "README.md", "yaml")
    content = yaml.safe_load(block)
    content["trainer"] |= {"accelerator": "cpu", "logger": False}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    arguments = ["--config", str(tmp_path / "config.yaml")]
    cli = LightningCLI(Small, run=False, args=arguments, save_config_callback=None, seed_everything_default=0)
    monitor, stopping = cli.trainer.callbacks[:2]
    assert isinstance(monitor, SaturationMonitor)
    assert isinstance(stopping, SaturationStopping)
    assert (monitor.watched.pooling, list(monitor.watched.exclude)) == ("positions", ["head"])
