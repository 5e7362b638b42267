"""The pictures of README and guide: a recorded run becomes reports again, and one profile is trained and drawn."""

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

import guide
from common import images

from tests.tiny import quiet

pytestmark = quiet


def test_a_recorded_run_has_the_numbers_of_its_file():
    reports, accuracy = guide.recorded(guide.RECORDED)
    run = json.loads(guide.RECORDED.read_text())
    averages = [row["saturation/train/average"] for row in run["rows"]]
    assert [report.average for report in reports] == pytest.approx(averages, abs=1e-4)
    assert accuracy.values == [row["val/accuracy"] for row in run["rows"]]
    assert reports[-1].layers["network.conv5_2"].features == 32


def test_checks_change_what_the_guide_says_they_change():
    data = images(limit=100)
    for name, check in guide.CHECKS.items():
        assert check != guide.PROFILES[name]
        assert guide.built(check, data)(data.train_pixels[:2].float()).shape == (2, 10)
    whole, cut = (guide.built(each["tail"], data) for each in (guide.PROFILES, guide.CHECKS))
    gone = {name for name, _ in whole.named_children()} - {name for name, _ in cut.named_children()}
    assert gone == {f"{part}{name}" for part in ("conv", "norm", "relu") for name in ("4_2", "5_1", "5_2")}


def test_every_picture_of_the_guide_is_there_and_named():
    folder = Path(guide.__file__).parents[1] / "docs"
    text = (folder / "guide.md").read_text()
    assert {path.stem for path in (folder / "guide").glob("*.png")} == set(guide.PROFILES)
    assert all(f"(guide/{name}.png)" in text for name in guide.PROFILES)


def test_a_profile_is_trained_and_drawn(tmp_path, monkeypatch, capsys):
    short = guide.PROFILES["bottleneck"]._replace(epochs=2, limit=100)
    monkeypatch.setitem(guide.PROFILES, "bottleneck", short)
    monkeypatch.setitem(guide.CHECKS, "bottleneck", short._replace(waist=24))
    monkeypatch.setattr(sys, "argv", ["guide.py", "--out", str(tmp_path / "docs" / "guide"), "--only", "bottleneck"])
    guide.main()
    pictures = sorted(path.relative_to(tmp_path / "docs") for path in tmp_path.rglob("*.png"))
    assert list(map(str, pictures)) == ["guide/bottleneck.png", "heatmap.png", "saturation.png"]
    with Image.open(tmp_path / "docs" / "guide" / "bottleneck.png") as picture:
        assert picture.width > 500
    said = capsys.readouterr().out
    assert "bottleneck: average saturation 0." in said
    assert "after what the guide says to do: average saturation 0." in said
