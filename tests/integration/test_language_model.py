"""The language model's example: padding stays out, blocks are named, and the picture is there."""

import sys
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))

import programs


def test_blocks_and_picture(tmp_path, monkeypatch, capsys):
    example = programs.ROOT / "examples" / "language_model.py"
    words = ["--epochs", "1", "--limit", "200", "--layers", "2"]
    status = programs.run_here(example, *words, folder=tmp_path, monkeypatch=monkeypatch)
    output = capsys.readouterr().out
    assert status == 0
    assert "180 lines; filled up to 64 bytes each" in output
    layers = [line.split() for line in output.splitlines() if line.startswith("body.layers.0.")]
    assert [layer[1:3] for layer in layers] == [["64", "180"], ["256", "180"], ["64", "180"]]
    assert "head                          257" in output
    blocks = output[output.index("block ") :].splitlines()
    assert [line.split()[0] for line in blocks[1:4]] == ["body.layers.0", "body.layers.1", "head"]
    with Image.open(tmp_path / "language_model.png") as picture:
        assert picture.width > 500
