"""The example on operator spectra, as a user starts it, and its network on images of any size."""

import sys
from functools import partial

import pytest
import torch

from tests.integration.programs import ROOT, run_here

pytest.importorskip("sklearn")

sys.path.insert(0, str(ROOT / "examples"))

from common.squeeze import squeezenet


@pytest.fixture
def start(tmp_path, monkeypatch):
    return partial(run_here, ROOT / "examples" / "eigenvalue_decay.py", folder=tmp_path, monkeypatch=monkeypatch)


def test_it_trains_measures_and_leaves_pictures(start, tmp_path, capsys):
    assert start("--epochs", "3", "--width", "0.1", "--limit", "300", "--size", "8") == 0
    said = capsys.readouterr().out
    assert "learning rate / 10 after epoch 2" in said
    assert "Spectra of layers as operators (epoch 0, step 0)" in said
    assert "Spectra of layers as operators (epoch 3, step 12)" in said
    assert "network.fire2.expand3x3" in said
    for name in ("histograms-before.png", "histograms.png", "norms.png", "evolution-first.png", "evolution.png"):
        assert (tmp_path / name).stat().st_size > 5000


def test_bad_arguments_end_with_a_sentence(start, capsys):
    assert start("--epochs", "0") == 2
    assert "above 0" in capsys.readouterr().err
    assert start("--data", "nothing") == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error:")


@pytest.mark.parametrize(("side", "fires"), [(8, 2), (32, 8), (224, 8)])
def test_the_network_keeps_the_order_of_squeezenet(side, fires):
    torch.manual_seed(0)
    network = squeezenet((3, side, side), 10, width=0.1)
    assert sum(name.count(".") == 0 and name.startswith("fire") for name, _ in network.named_modules()) == fires
    with torch.no_grad():
        assert network(torch.zeros(2, 3, side, side)).shape == (2, 10)
