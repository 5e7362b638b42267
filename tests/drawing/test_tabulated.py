"""What reports look like in a terminal, in a list and in a notebook."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
import torch
from torch import nn

from lightning_saturation import (
    LearningDynamics,
    SaturationReport,
    SimilarityMatrix,
    SpectrumReport,
    SweepOutcome,
    match_networks,
    measure_dimension,
    measure_spectrum,
)
from lightning_saturation.drawing.tabulated import html_table, shares
from tests.profiles import layer, missing, profile


def matrix(method="svcca"):
    values = torch.tensor([[0.9, 0.2], [float("nan"), 0.7]], dtype=torch.float64)
    return SimilarityMatrix(("a", "b"), ("a", "b"), values, method, samples=1024)


@pytest.fixture(scope="module")
def reports():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    rows = [torch.randn(64, 6) for _ in range(2)]
    return {
        "saturation": profile([50, None, 25]),
        "dimension": measure_dimension(network, rows),
        "spectrum": measure_spectrum(network, rows[0]),
        "similarity": matrix(),
        "dynamics": LearningDynamics({0.0: matrix(), 1.0: matrix()}),
        "matching": match_networks(network, network, rows),
        "blocks": profile([50, None, 25]).by_block(),
        "sweep": SweepOutcome("accuracy", (trial(1, 0.4), trial(2, None)), {"width=3": "ValueError: no"}),
    }


def trial(width, average):
    return {
        "config": {"width": width}, "value": 0.9, "average": average, "parameters": 9, "verdict": "Fine.",
        "findings": [], "layers": {"a": average},
    }  # fmt: skip


KINDS = ["saturation", "dimension", "spectrum", "similarity", "dynamics", "matching", "blocks", "sweep"]


class Cells(HTMLParser):
    """The texts of all cells, and which tags were not closed."""

    def __init__(self, html):
        super().__init__()
        self.open, self.rows, self.bars = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        width = re.search(r"width:(\d+)px;height", dict(attrs).get("style", ""))
        if width:
            self.bars.append(int(width[1]))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


@pytest.mark.parametrize("kind", KINDS)
def test_every_report_is_a_table_with_bars_in_a_notebook(kind, reports):
    report = reports[kind]
    cells = Cells(report._repr_html_())
    assert not cells.open
    assert cells.bars
    assert all(0 <= bar <= 90 for bar in cells.bars)
    assert len({len(row) for row in cells.rows}) == 1
    text = str(report)
    for row in cells.rows:
        assert all(cell in text for cell in row)


@pytest.mark.parametrize("kind", KINDS)
def test_a_list_of_reports_is_short(kind, reports):
    assert len(repr(reports[kind])) < 120
    assert "\n" not in repr(reports[kind])


def test_a_report_in_a_list_says_which_window_it_is_of():
    many = profile([50] * 300, epoch=7, stage="val")
    assert repr([many]) == "[SaturationReport(val, epoch 7, 300 layers, average 0.500)]"


def test_bars_are_as_long_as_saturation_and_missing_ones_are_left_out():
    cells = Cells(SaturationReport({"a": layer(50), "b": missing(), "c": layer(80)})._repr_html_())
    assert cells.bars == [45, 72]
    assert [row[4] for row in cells.rows[1:]] == ["0.500", "missing", "0.800"]


def test_names_and_notes_cannot_break_the_page():
    html = html_table("<b>", ["x"], [["<script>&"]], sentences=["<i>"])
    assert "<script>" not in html
    assert "&lt;script&gt;&amp;" in html
    assert "<i>" not in html


def test_a_diagnosis_is_a_list_in_a_notebook():
    found = profile([60, 60, 50]).diagnose()
    assert found.kinds == ("too narrow",)
    html = found._repr_html_()
    assert not Cells(html).open
    assert found.findings[0].advice in html
    assert html.count("<li>") == len(found.findings) + len(found.notes)
    assert repr(found) == "Diagnosis(train, epoch 0: too narrow)"
    assert repr(profile([30, 30]).diagnose()) == "Diagnosis(train, epoch 0: nothing to flag)"


def test_widths_are_a_table_with_the_reasons_of_those_left_out():
    widths = profile([10, None]).suggest_widths(target=0.2)
    rows = Cells(widths._repr_html_()).rows
    assert rows[1] == ["features.0", "100", "50", ""]
    assert rows[2][3].startswith("no estimate: ")
    assert repr(widths) == "WidthEstimates(target=0.2, {'features.0': 50}, 1 left out)"


def test_a_distance_has_the_smallest_as_most_alike():
    assert "b  " in str(matrix())
    lines = str(matrix("procrustes")).splitlines()
    assert lines[0] == "Distance of layers (procrustes, 1024 samples)"
    assert lines[2].split() == ["a", "0.200", "0.900", "b"]
    assert str(matrix()).splitlines()[2].split() == ["a", "0.900", "0.900", "a"]


def test_an_empty_report_is_a_table_all_the_same():
    for empty in (SaturationReport({}), SpectrumReport({}), LearningDynamics({})):
        assert not Cells(empty._repr_html_()).open
        assert repr(empty)


def test_shares_of_what_is_missing_or_zero():
    assert shares([0.0, 0.0]) == [0.0, 0.0]
    assert shares([]) == []
    some = shares([float("nan"), 2.0])
    assert some[0] != some[0]
    assert some[1] == 1.0
