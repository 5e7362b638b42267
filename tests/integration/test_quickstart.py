"""The README's first command: what it prints and leaves behind, on one process and on two, and how it fails."""

import re
import sys
from pathlib import Path

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))

import programs

QUICKSTART = programs.ROOT / "examples" / "quickstart.py"


WORDS = ["--epochs", "2", "--limit", "600"]


def test_one_command_from_nothing_to_the_picture(tmp_path, monkeypatch, capsys):
    wandb = pytest.importorskip("wandb")
    status = programs.run_here(QUICKSTART, *WORDS, folder=tmp_path, monkeypatch=monkeypatch)
    wandb.teardown()
    said = capsys.readouterr()
    assert status == 0
    check(said.out + said.err, tmp_path)


@pytest.mark.timeout(900)
def test_the_same_from_two_processes(tmp_path):
    with programs.program([str(QUICKSTART), *WORDS, "--devices", "2"], folder=tmp_path) as (process, _):
        output, _ = process.communicate(timeout=programs.PATIENCE)
    assert process.returncode == 0, output
    check(output, tmp_path)

    # nothing that does not speak of this run
    for noise in ("warn", "wandb:", "GPU", "HPU", "litlogger", "num_workers"):
        assert noise not in output, output


def check(output, tmp_path):
    assert "480 training and 120 test images of 1×8×8, 10 classes" in output
    assert re.search(r"Epoch 1: +100%.*saturation/train=0\.\d+", output)

    # a sentence on training first, and one table, over all images whatever the number of processes
    assert output.count("Saturation (train, epoch 1") == 1
    sentence = re.search(r"accuracy 0\.\d+ after \d+ s\n\n(.+)\n\nSaturation \(train, epoch 1", output)
    assert sentence, output
    assert sentence[1].endswith(".")
    rows = [line.split() for line in output.splitlines() if line.startswith("network.")]
    assert [row[0] for row in rows] == [f"network.{name}" for name in ("conv1", "conv2", "conv3", "conv4", "output")]
    assert [row[1:3] for row in rows] == [[str(n), "480"] for n in (32, 64, 64, 64, 10)]

    assert f"Picture:  {tmp_path / 'saturation.png'}" in output
    with Image.open(tmp_path / "saturation.png") as picture:
        assert picture.width > 1000
        assert len(picture.convert("RGB").getcolors(2**24)) > 20
    runs = list((tmp_path / "wandb").glob("offline-run-*"))
    assert [f"W&B run:  {run}" in output for run in runs] == [True]
    assert list(runs[0].glob("*.wandb"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere.zip"], "error: Expected `path` to be a folder or zip of class/image files"),
        (["--data", "empty"], "error: Expected class/image files"),
        (["--width", "0"], "error: Expected `width` above 0, got 0.0"),
        (["--model", "resnet"], "argument --model: invalid choice: 'resnet'"),
        (["--epochs", "none"], "argument --epochs: expected a whole number above 0, got 'none'"),
        (["--devices", "0"], "argument --devices: expected a whole number above 0, got '0'"),
        (["--out", "file"], "argument --out: expected a folder, got the file 'file'"),
    ],
)
def test_mistakes_say_what_to_do(monkeypatch, capsys, tmp_path, arguments, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["quickstart.py", *arguments])
    monkeypatch.syspath_prepend(QUICKSTART.parent)
    import quickstart

    try:
        code = quickstart.main()
    except SystemExit as end:  # argparse
        code = end.code
    assert code == 2
    assert message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file"]
