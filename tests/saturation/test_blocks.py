import math
from dataclasses import replace

import pytest

from lightning_saturation.saturation.report.layer import with_rows
from tests.profiles import profile

NAMES = (
    "model.bert.embeddings.project",
    "model.bert.encoder.layer.0.attention.query",
    "model.bert.encoder.layer.0.output",
    "model.bert.encoder.layer.1.attention.query",
    "model.bert.encoder.layer.1.output",
    "model.classifier",
)


def report():
    return profile([10, 20, 40, 30, None, 80], names=NAMES, output=True)


def test_a_block_ends_with_its_number():
    blocks = report().by_block()
    assert {name: block.layers for name, block in blocks.items()} == {
        "model.bert.encoder.layer.0": NAMES[1:3],
        "model.bert.encoder.layer.1": NAMES[3:5],
        "model.bert": NAMES[:1],
        "model.classifier": NAMES[5:],
    }
    first = blocks["model.bert.encoder.layer.0"]
    assert (first.average, first.lowest, first.highest) == pytest.approx((0.3, 0.2, 0.4))
    assert blocks["model.bert.encoder.layer.1"].average == 0.3  # the other is missing
    assert math.isnan(blocks["model.classifier"].average)  # an output layer
    assert next(iter(blocks)) == "model.bert"


def test_or_after_as_many_parts_as_are_asked_for():
    assert list(report().by_block(2)) == ["model.bert.embeddings", "model.bert.encoder", "model.classifier"]
    assert len(report().by_block(9)) == len(NAMES)
    with pytest.raises(ValueError, match="`depth` of at least 1"):
        report().by_block(0)


def test_layers_without_data_are_in_no_number():
    plain = report()
    other = replace(plain, layers=with_rows(plain.layers, {NAMES[2]: "none"}))
    assert other.by_block()["model.bert.encoder.layer.0"].average == 0.2


def test_text_names_every_block_once():
    lines = str(report().by_block()).splitlines()
    assert len(lines) == 1 + 4
    assert lines[0].split() == ["block", "layers", "average", "lowest", "highest"]
    assert lines[-1].split() == ["model.classifier", "1", "not", "in", "the", "average"]


def test_the_text_of_very_many_layers_has_a_line_for_each_block():
    names = [f"net.blocks.{block}.{part}" for block in range(30) for part in "abcd"]
    text = str(profile([10, 20, 40, None] * 30, names=[*names[:-1], "net.head"], output=True))
    lines = text.splitlines()
    assert len(lines) < 30 + 10
    assert lines[1].split() == ["block", "layers", "average", "lowest", "highest"]
    assert lines[2].split() == ["net.blocks.0", "4", "0.233", "0.100", "0.400"]
    assert "1 layers: output layer, not in the average" in lines
    assert "120 layers by block" in text
    assert "net.blocks.0.a" not in text
    apart = str(profile([10] * 120))  # each a block of its own
    assert len(apart.splitlines()) >= 2 + 120
    assert "features.119" in apart
