"""The README's text classifier, as it stands there."""

import re
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from tests.tiny import quiet

pytestmark = [*quiet, pytest.mark.filterwarnings("default")]


def test_from_a_text_classifier_to_a_diagnosis(tmp_path, monkeypatch, capsys):
    hf = pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(class TextClassifier.*?)```", text, flags=re.DOTALL)
    torch.manual_seed(0)
    config = hf.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, num_labels=2
    )
    lengths = torch.randint(2, 9, (64,))
    mask = (torch.arange(8) < lengths[:, None]).long()
    rows = [
        {"input_ids": torch.randint(5, 50, (8,)) * each, "attention_mask": each, "labels": torch.randint(2, ())}
        for each in mask
    ]
    options = {"enable_progress_bar": False, "logger": False, "enable_checkpointing": False, "accelerator": "cpu"}

    def trainer(**given):
        return lightning.Trainer(**options, **given)

    import lightning

    from lightning_saturation import SaturationMonitor

    scope = {
        "torch": torch, "LightningModule": lightning.LightningModule, "Trainer": trainer,
        "SaturationMonitor": SaturationMonitor, "model": hf.BertForSequenceClassification(config),
        "loader": DataLoader(rows, 16),
    }  # fmt: skip
    exec(code, scope)
    report = scope["monitor"].report()
    assert report.masked[:2] == (
        "model.bert.encoder.layer.0.attention.self.query",
        "model.bert.encoder.layer.0.attention.self.key",
    )
    assert "model.bert.pooler.dense" not in report.masked  # has no positions
    assert report.output_layers == ("model.classifier",)
    assert {layer.samples for layer in report.layers.values()} == {64}
    printed = capsys.readouterr().out
    assert "model.bert.encoder.layer.1 " in printed
    assert "Diagnosis (train, epoch 2)" in printed
