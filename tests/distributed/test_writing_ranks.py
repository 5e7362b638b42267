from __future__ import annotations

import os

import pytest
from lightning.pytorch.loggers.logger import Logger

from lightning_saturation import SaturationMonitor
from tests.loggers.runs import Net, train


class PerProcess(Logger):
    """Takes whatever a TensorBoard writer takes, on every rank, and notes it in a file of the process's own."""

    name, version = "per-process", 0

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    @property
    def experiment(self):
        return self

    def log_hyperparams(self, *args, **kwargs):
        pass

    def log_metrics(self, metrics, step=None):
        for key in metrics:
            self.note(key)

    def note(self, key, *args, **kwargs):
        with (self.folder / f"rank-{os.environ.get('LOCAL_RANK', '0')}-{os.getpid()}").open("a") as file:
            file.write(f"{key}\n")

    add_image = add_text = add_histogram = note


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that are forked")
@pytest.mark.usefixtures("small_pictures")
def test_only_the_first_of_two_ranks_writes(tmp_path):
    (tmp_path / "notes").mkdir()
    monitor = SaturationMonitor(save_dir=tmp_path / "files", log_windows=True, stages="train")
    train(
        [monitor],
        PerProcess(tmp_path / "notes"),
        epochs=2,
        module=Net(logs=False),
        strategy="ddp_fork",
        devices=2,
    )
    (notes,) = (tmp_path / "notes").iterdir()
    assert notes.name.startswith("rank-0-")
    written = notes.read_text().splitlines()
    assert written.count("saturation/train/average") == 2
    assert written.count("saturation/train/window/table") == 2
    assert written.count("saturation/table") == 1
    assert sorted(path.name for path in (tmp_path / "files").iterdir()) == [
        f"saturation.{e}" for e in ("csv", "json", "png")
    ]
