"""The committed records of the paper's runs: small, whole, those of the plan; and every figure is drawn from them."""

import json

import pytest

from examples.paper.figures import draw
from examples.paper.run import HERE, plan

FILES = sorted((HERE / "results").glob("*.json"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_records_are_small_and_whole(file):
    assert file.stat().st_size <= 200_000
    record = json.loads(file.read_text(), parse_constant=pytest.fail)
    assert record["settings"]["name"] == file.stem
    assert file.stem in {settings.name for settings in plan()}
    assert len(record["rows"]) == record["settings"]["epochs"]
    assert [row["epoch"] for row in record["rows"]] == list(range(record["settings"]["epochs"]))


def test_figures_are_drawn_from_the_committed_records(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["draw.py", "--out", str(tmp_path)])
    assert draw.main() == 0
    drawn = {file.stem for file in tmp_path.glob("*.png")}
    told = {line.split(":")[0] for line in capsys.readouterr().out.splitlines() if "no finished run" in line}
    assert drawn | told == {*draw.FIGURES, *draw.STUDIES}
    assert {"saturation_dense", "saturation_dense_training", "directions"} <= drawn
