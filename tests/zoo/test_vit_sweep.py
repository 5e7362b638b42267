"""The sweep of a network that is not ours, one trial of one epoch."""

import runpy
from pathlib import Path

import pytest

import lightning_saturation
from tests.tiny import quiet

pytestmark = [*quiet, pytest.mark.filterwarnings("default")]
PROGRAM = Path(__file__).parents[2] / "examples" / "sweep" / "vit.py"


def test_a_trial_of_the_example(tmp_path, monkeypatch, capsys):
    pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    sweep = lightning_saturation.sweep

    def one(trial, grid, **options):
        trainer = {**options.pop("trainer"), "max_epochs": 1, "accelerator": "cpu"}
        return sweep(trial, {name: values[:1] for name, values in grid.items()}, trainer=trainer, **options)

    monkeypatch.setattr(lightning_saturation, "sweep", one)
    runpy.run_path(str(PROGRAM), run_name="__main__")
    printed = capsys.readouterr().out
    assert "Failed" not in printed
    assert "hidden_size=16, " in printed
    assert len(list((tmp_path / "results" / "trials").iterdir())) == 1
