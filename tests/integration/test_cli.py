"""The callbacks from a LightningCLI configuration."""

from __future__ import annotations

import sys

import pytest
from lightning.pytorch import LightningDataModule

from lightning_saturation import SaturationMonitor, SaturationStopping
from tests.tiny import LAYERS, SAMPLES, Net, batches, is_untouched, quiet, seen

pytest.importorskip("jsonargparse")
cli = pytest.importorskip("lightning.pytorch.cli")

pytestmark = quiet


@pytest.fixture(autouse=True)
def no_other_command_line(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # of what Lightning calls


class Samples(LightningDataModule):
    def train_dataloader(self):
        return batches()

    def val_dataloader(self):
        return batches(16)


TRAINER = """
trainer:
  accelerator: cpu
  devices: 1
  logger: false
  enable_checkpointing: false
  enable_progress_bar: false
  enable_model_summary: false
  max_epochs: 9
  callbacks:
"""


def run(tmp_path, callbacks, *arguments):
    """Run ``fit`` with the ``callbacks`` in YAML and return the CLI."""
    config = tmp_path / "config.yaml"
    config.write_text(TRAINER + callbacks)
    command = ["fit", f"--config={config}", *arguments]
    return cli.LightningCLI(Net, Samples, args=command, save_config_callback=None, seed_everything_default=False)


def of_type(done, kind):
    (callback,) = [callback for callback in done.trainer.callbacks if isinstance(callback, kind)]
    return callback


def test_defaults(tmp_path):
    done = run(tmp_path, "    - class_path: lightning_saturation.SaturationMonitor\n", "--trainer.max_epochs=1")
    monitor = of_type(done, SaturationMonitor)
    assert seen(monitor) == [dict.fromkeys(LAYERS, SAMPLES)]
    assert [report.stage for report in monitor.reports] == ["train", "val"]
    assert is_untouched(done.model)


EVERYTHING = """
    - class_path: lightning_saturation.SaturationMonitor
      init_args:
        layers: ["body.*"]
        exclude: [body.first]
        output_layers: []
        delta: 0.5
        pooling: positions
        stages: [train]
        every_n_train_steps: 2
        name: mine
    - class_path: lightning_saturation.SaturationStopping
      init_args:
        stage: train
        tolerance: 1.0
        window: 3
        patience: 1
        min_epochs: 3
        layers: [body.second]
        name: mine
    - class_path: lightning.pytorch.callbacks.EarlyStopping
      init_args: {monitor: mine/train/average, patience: 100}
"""


def test_every_argument(tmp_path):
    done = run(tmp_path, EVERYTHING)
    monitor, stopping = of_type(done, SaturationMonitor), of_type(done, SaturationStopping)
    assert (monitor.name, monitor.every_n_train_steps, monitor.watched.pooling, list(monitor.stages)) == (
        "mine",
        2,
        "positions",
        ["train"],
    )
    assert {tuple(report.layers) for report in monitor.reports} == {("body.second", "body.head")}
    assert {(report.delta, report.output_layers, report.stage) for report in monitor.reports} == {(0.5, (), "train")}
    assert (stopping.rule.tolerance, stopping.rule.window, stopping.min_epochs) == (1.0, 3, 3)
    assert "mine/train/average" in done.trainer.callback_metrics


@pytest.mark.parametrize(
    ("argument", "message"),
    [("pooling: avg", "avg"), ("delta: much", "much"), ("detla: 0.9", "detla")],
)
def test_a_typo_ends_the_program_with_a_message(argument, message, tmp_path, capsys):
    callbacks = f"    - class_path: lightning_saturation.SaturationMonitor\n      init_args: {{{argument}}}\n"
    with pytest.raises(SystemExit):
        run(tmp_path, callbacks)
    assert message in capsys.readouterr().err


def test_the_configuration_can_be_printed(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(tmp_path, EVERYTHING, "--print_config")
    printed = capsys.readouterr().out
    assert "class_path: lightning_saturation.SaturationMonitor" in printed
    assert "max_samples: default" in printed  # defaults are spelled out
