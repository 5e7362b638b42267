"""The examples on similarity run on the digits as a user starts them, and leave their pictures."""

import pytest

from tests.integration.programs import ROOT, run_here

pytest.importorskip("sklearn")

EXAMPLES = {
    "learning_dynamics": (["--epochs", "2"], ["learning_dynamics.png", "convergence.png", "class_similarity.png"]),
    "freeze_training": (["--epochs", "3", "--runs", "1"], ["freeze_training.png"]),
    "compress": (["--epochs", "1"], ["compress.png"]),
    "convergent_learning": (["--epochs", "1"], ["convergent_conv1.png", "sparse_mapping.png"]),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_ends_with_its_pictures(name, tmp_path, monkeypatch, capsys):
    options, pictures = EXAMPLES[name]
    words = ["--limit", "400", "--width", "0.25", *options, "--out", str(tmp_path / "out")]
    assert run_here(ROOT / "examples" / f"{name}.py", *words, folder=tmp_path, monkeypatch=monkeypatch) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(pictures)
    assert "Picture" in capsys.readouterr().out
