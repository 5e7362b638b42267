"""Reports: plain data in and out, averages, flags and series."""

import copy
import json
import math
import pickle
from dataclasses import replace

import pytest
import torch

from lightning_saturation.saturation.report.layer import LayerStatistics
from lightning_saturation.saturation.report.report import SaturationReport
from lightning_saturation.saturation.report.windows import saturation_series


def layer(*eigenvalues, samples=100, **options):
    spectrum = torch.tensor(eigenvalues, dtype=torch.float64)
    return LayerStatistics.from_eigenvalues(spectrum, features=len(spectrum), samples=samples, **options)


def failed(features=4, samples=100):
    return LayerStatistics.from_eigenvalues(None, features=features, samples=samples)


def report(**options):
    layers = {
        "a": layer(1, 1, 1, 1),
        "b": layer(1, 0, 0, 0, skipped=3),
        "gone": failed(),
        "head": layer(1, 1, samples=2),
    }
    return SaturationReport(layers, stage="train", epoch=2, step=30, output_layers=("head",), **options)


def test_statistics_of_a_layer_are_those_of_its_spectrum():
    statistics = layer(0.005, 0.49, 0.5, 0.005)
    assert (statistics.intrinsic_dimension, statistics.saturation) == (2, 0.5)
    assert statistics.continuous_saturation == pytest.approx(0.5)
    assert statistics.total_variance == pytest.approx(1.0)
    assert statistics.stable_rank == pytest.approx(2.0)
    assert statistics.participation_ratio == pytest.approx(1 / (0.5**2 + 0.49**2 + 2 * 0.005**2))
    assert statistics.eigenvalues.tolist() == [0.5, 0.49, 0.005, 0.005]
    assert not statistics.too_few_samples


@pytest.mark.parametrize(("samples", "few"), [(3, True), (4, True), (5, False)])
def test_as_many_samples_as_features_are_too_few(samples, few):
    assert layer(1, 1, 1, 1, samples=samples).too_few_samples is few


@pytest.mark.parametrize("missing", [failed(), failed(samples=0), layer(0, 0, samples=0)])
def test_what_failed_or_saw_nothing_is_missing_and_not_zero(missing):
    assert all(math.isnan(getattr(missing, key)) for key in ("saturation", "effective_rank", "total_variance"))
    assert missing.eigenvalues is None


def test_the_average_leaves_out_output_layers_and_what_is_missing():
    assert report().average == (1.0 + 0.25) / 2
    assert replace(report(), output_layers=()).average == (1.0 + 0.25 + 1.0) / 3
    assert math.isnan(SaturationReport({"gone": failed()}).average)
    assert math.isnan(SaturationReport({}).average)


def test_records_are_plain_and_survive_json():
    records = report().to_records()
    assert json.loads(json.dumps(records, allow_nan=False)) == records
    assert [record["layer"] for record in records] == ["a", "b", "gone", "head"]
    assert [record["index"] for record in records] == [0, 1, 2, 3]
    assert records[2]["saturation"] is None
    assert {key: records[1][key] for key in ("stage", "epoch", "step", "skipped", "saturation", "output")} == {
        "stage": "train",
        "epoch": 2,
        "step": 30,
        "skipped": 3,
        "saturation": 0.25,
        "output": False,
    }


@pytest.mark.parametrize("eigenvalues", [True, False])
def test_state_loads_with_weights_only_and_comes_back_the_same(eigenvalues, tmp_path):
    original = replace(report(partial=True, learning_rates=(0.1, 0.2)), layers={"a": layer(2, 1), "head": layer(3, 1)})
    torch.save(original.to_state(eigenvalues=eigenvalues), tmp_path / "state.pt")
    loaded = SaturationReport.from_state(torch.load(tmp_path / "state.pt", weights_only=True))
    assert loaded == original
    kept = loaded.layers["a"].eigenvalues
    assert torch.equal(kept, original.layers["a"].eigenvalues) if eigenvalues else kept is None


def test_state_does_not_share_tensors():
    original = report()
    original.to_state()["layers"]["a"]["eigenvalues"].zero_()
    assert original.layers["a"].eigenvalues.sum() == 4


def test_reports_copy_and_pickle():
    for other in (copy.deepcopy(report()), pickle.loads(pickle.dumps(report()))):
        assert str(other) == str(report())
        assert torch.equal(other.layers["a"].eigenvalues, report().layers["a"].eigenvalues)


def test_the_table_says_what_a_reader_must_know():
    lines = str(report()).splitlines()
    assert "train, epoch 2, step 30" in lines[0]
    assert "0.625" in lines[0]
    rows = {line.split()[0]: line for line in lines[1:]}
    assert "3 rows with NaN or infinity left out" in rows["b"]
    assert "missing" in rows["gone"]
    assert "output layer, not in the average" in rows["head"]
    assert "fewer samples than needed" in rows["head"]
    assert "fewer samples" not in rows["a"]


def history(*values, **options):
    reports = []
    for index, value in enumerate(values):
        statistics = replace(layer(1, 1), continuous_saturation=value)
        reports.append(SaturationReport({"a": statistics}, stage="train", epoch=index, **options))
    return reports


def test_a_series_holds_a_value_for_every_report_oldest_first():
    assert saturation_series(history(0.1, 0.2, 0.3), ["a"]) == {"a": [0.1, 0.2, 0.3]}
    series = saturation_series(history(0.1, math.nan), ["a", "elsewhere"])
    assert series["a"] == pytest.approx([0.1, math.nan], nan_ok=True)
    assert series["elsewhere"] == pytest.approx([math.nan, math.nan], nan_ok=True)
    assert saturation_series([], ["a"]) == {"a": []}
