"""Tables from committed records: the statistics, the verdicts, the page."""

import math
import shutil

import numpy as np
import pytest

from examples.paper.evidence import PAPERS, ROOT, main, texts
from examples.paper.run import HERE

# the examples' own package, under the name by which the programs import it
from paper.figures.records import Record  # isort: skip
from paper.settings import Settings  # isort: skip
from paper.worth import statistics  # isort: skip
from paper.worth.accuracies import accuracies  # isort: skip
from paper.worth.claims import FAILS, HOLDS, OPEN, correlation, of_runs, of_studies  # isort: skip
from paper.worth.ranking import ranking  # isort: skip
from paper.worth.stopping import halves, stopping  # isort: skip
from paper.worth.tables import write  # isort: skip


def test_intervals_hold_the_true_mean_about_as_often_as_they_say():
    generator = np.random.default_rng(1)
    held = 0
    for _ in range(60):
        shift = generator.normal(size=20)  # what all seeds of a kind share
        values = (shift[:, None] + 0.1 * generator.normal(size=(20, 3))).ravel()
        found = statistics.mean(list(values), list(np.repeat(np.arange(20), 3)))
        held += found.low <= 0 <= found.high
    assert 0.8 <= held / 60 <= 1.0
    # each run for itself: three seeds would count as three networks
    narrow = statistics.mean(list(values), list(range(60)))
    assert narrow.high - narrow.low < 0.75 * (found.high - found.low)


def test_rank_correlations_within_equal_depth_leave_out_what_depth_does():
    depth = np.repeat([0, 1, 2], 8)
    x = depth * 10 + np.tile(np.arange(8), 3)
    y = depth * 10 - np.tile(np.arange(8), 3)
    groups = list(range(24))
    assert statistics.rank_correlation(x, y, groups).value > 0.5
    assert statistics.within(x, y, list(depth), groups).value == pytest.approx(-1)
    assert math.isnan(statistics.rank_correlation([1, 1, 1, 1], [1, 2, 3, 4], [0, 1, 2, 3]).value)
    assert math.isnan(statistics.mean([1, 2, 3, 4], [0, 1, 2, 3]).low)  # four groups: no interval


def _runs(values, seeds=1):
    """Records of dense networks whose hidden layer's width goes with these final accuracies."""
    found = []
    for seed in range(seeds):
        for hidden, value in zip((8, 16, 32, 64, 128), values, strict=True):
            found.append(Record(Settings("mlp", hidden, seed=seed), {"rows": [{"val/accuracy": value + 0.001 * seed}]}))
    return found


def _claim():
    number = correlation(lambda run: run.settings.width, lambda run: run.accuracy)
    return of_runs("p", "t", "c", "g", lambda s: s.model == "mlp" and s.data == "photos" and s.epochs == 20, number)


def test_a_claim_holds_does_not_or_is_open():
    claim = _claim()
    assert claim.verdict(_runs([0.1, 0.2, 0.3, 0.4, 0.5]), []).says == HOLDS
    assert claim.verdict(_runs([0.5, 0.4, 0.3, 0.2, 0.1]), []).says == FAILS
    assert claim.verdict(_runs([0.3, 0.1, 0.5, 0.2, 0.4]), []).says not in (HOLDS, FAILS)
    few = claim.verdict(_runs([0.1, 0.2, 0.3, 0.4, 0.5])[:3], [])
    assert (few.says, few.basis) == (OPEN, "3 of 15 runs, 3 of 5 kinds")
    assert claim.verdict([], []).number == "–"


def test_a_claim_about_studies_is_told_study_by_study():
    claim = of_studies("p", "t", "c", "widths", lambda study: study["value"])
    studies = [{"kind": "widths", "name": f"widths_{i}", "value": v} for i, v in enumerate((0.1, 0.2))]
    assert claim.verdict([], studies).says == HOLDS
    assert claim.verdict([], studies).number == "+0.1 (0); +0.2 (1)"
    studies[0]["value"] = -0.1
    assert claim.verdict([], studies).says == "in part"
    assert claim.verdict([], studies[:1]).says == OPEN  # one of two


def _long(name, settles):
    """A run of 60 epochs whose profile and accuracy move until the epoch ``settles``."""
    ramp = np.minimum(np.arange(60) / settles, 1.0)
    return {
        "settings": {"name": name},
        "rows": [{"val/accuracy": v, "val/loss": 2 - v, "train/loss": 2 - v} for v in ramp.tolist()],
        "train": {"lr": [[0.1]] * 60, "output": [], "continuous_saturation": {"a": ramp.tolist(), "b": ramp.tolist()}},
    }


def test_stopping_rules_are_chosen_on_one_half_and_judged_on_the_other():
    table = stopping([_long(f"run{i}_s0", 15 + 3 * i) for i in range(10)])
    assert "Chosen on 5 runs, judged on 5 others." in table
    settled = next(line for line in table.splitlines() if "default" in line)
    assert "5 of 5" in settled
    assert settled.endswith("| +0.000 |")  # nothing moves any more where it stops
    assert stopping([_long("run_s0", 10)]).startswith("Not decided here")


def test_seeds_of_one_kind_are_on_one_side_of_the_split():
    runs = [_long(f"kind{kind}_s{seed}", 10) for kind in range(4) for seed in range(2)]
    sides = [{run["settings"]["name"].split("_")[0] for run in half} for half in halves(runs)]
    assert sides == [{"kind0", "kind2"}, {"kind1", "kind3"}]


def test_accuracies_are_means_of_the_last_epochs_and_of_seeds():
    def runs(*accuracies, width):
        rows = [{"val/accuracy": value} for value in accuracies]
        return [Record(Settings("vgg13", width, seed=seed), {"rows": rows}) for seed in range(2)]

    found = accuracies([*runs(0.1, 0.5, 0.6, 0.7, width=1 / 8), *_runs([0.1] * 5)])
    assert "| photos | VGG13 | – | 0.600 (2) | – |" in found
    assert accuracies([]) == "No network of the grid is finished."


def test_ranking_needs_runs():
    assert ranking([]) == "No problem has four finished runs yet."


def test_every_table_is_made_from_the_committed_records(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(statistics, "DRAWS", 20)
    page = tmp_path / "evidence.md"
    shutil.copy(ROOT / "docs" / "evidence.md", page)
    before = page.read_text()
    monkeypatch.setattr("sys.argv", ["evidence.py", "--page", str(page), "--series", str(tmp_path / "none")])
    assert main() == 0
    after = page.read_text()
    claims = sum(len(paper.claims()) for paper in PAPERS)
    rows = _between(after, "claims").strip().splitlines()
    assert len(rows) == claims + 2
    assert len({line.count("|") for line in rows}) == 1  # no cell breaks its table
    assert _between(after, "stopping") == _between(before, "stopping")  # the further series are not there
    assert texts(HERE / "results", tmp_path / "none").keys() >= {"claims", "ranking", "sizing"}


def _between(page, mark):
    return page.partition(f"<!-- {mark} -->")[2].partition(f"<!-- end of {mark} -->")[0]


def test_a_page_without_marks_is_an_error(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("nothing")
    with pytest.raises(ValueError, match="Expected the marks of 'claims'"):
        write(page, {"claims": "text"})
