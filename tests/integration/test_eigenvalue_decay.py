"""The example on operator spectra, as a user starts it, and its network on images of any size."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("sklearn")

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "examples"))

from common.squeeze import squeezenet  # noqa: E402


def start(folder, *arguments):
    command = [sys.executable, str(ROOT / "examples" / "eigenvalue_decay.py"), *arguments]
    environment = {"PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1", "PATH": ""}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200, check=False
    )


def test_it_trains_measures_and_leaves_pictures(tmp_path):
    done = start(tmp_path, "--epochs", "3", "--width", "0.1", "--limit", "300", "--size", "8")
    assert done.returncode == 0, done.stderr
    assert "learning rate / 10 after epoch 2" in done.stdout
    assert "Spectra of layers as operators (epoch 0, step 0)" in done.stdout
    assert "Spectra of layers as operators (epoch 3, step 12)" in done.stdout
    assert "network.fire2.expand3x3" in done.stdout
    for name in ("histograms-before.png", "histograms.png", "norms.png", "evolution-first.png", "evolution.png"):
        assert (tmp_path / name).stat().st_size > 5000


def test_bad_arguments_end_with_a_sentence(tmp_path):
    assert "above 0" in start(tmp_path, "--epochs", "0").stderr
    done = start(tmp_path, "--data", str(tmp_path / "nothing"))
    assert (done.returncode, done.stderr.splitlines()[-1][:6]) == (2, "error:")


@pytest.mark.parametrize(("side", "fires"), [(8, 2), (32, 8), (224, 8)])
def test_the_network_keeps_the_order_of_squeezenet(side, fires):
    torch.manual_seed(0)
    network = squeezenet((3, side, side), 10, width=0.1)
    assert sum(name.count(".") == 0 and name.startswith("fire") for name, _ in network.named_modules()) == fires
    with torch.no_grad():
        assert network(torch.zeros(2, 3, side, side)).shape == (2, 10)
