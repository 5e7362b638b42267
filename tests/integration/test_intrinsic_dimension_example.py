"""The example on dimensions: what it prints and which pictures it leaves."""

import re
import sys
from pathlib import Path

import pytest
from PIL import Image

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def example(monkeypatch, tmp_path):
    """Run the example with arguments in a folder of its own, and return its exit status."""
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.chdir(tmp_path)
    import intrinsic_dimension

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["intrinsic_dimension.py", *arguments])
        return intrinsic_dimension.main()

    return run


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*")
def test_profile_family_and_pictures(example, capsys, tmp_path):
    arguments = ["--epochs", "1", "--limit", "400", "--model", "cnn:0.25", "--samples", "200", "--threads", "1"]
    assert example(*arguments, "--networks", "mlp:0.5", "cnn:0.25") == 0
    output = capsys.readouterr().out
    assert "random: TwoNN" in output
    both = re.search(r"input data +0\.00 +64 +200 +(\d+\.\d) +\d+\.\d +(\d+) +(\d+\.\d) +(\d+)", output)
    assert both is not None
    assert both.group(1, 2) == both.group(3, 4)  # the same images, whatever the weights
    assert re.search(r"Scales of pool: \d+\.\d ± \d\.\d on 200, ", output)
    assert re.search(r"Pearson correlation of dimension and accuracy over 2 networks: -?1\.00", output)
    for name in ("dimension.png", "dimension_epochs.png", "dimension_accuracy.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.width > 500


def test_an_unknown_network_is_named(example, capsys, tmp_path):
    assert example("--model", "resnet") == 2
    assert "error: Expected a network among" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.png"))
