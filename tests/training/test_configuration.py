from __future__ import annotations

import inspect
import json

import pytest
import torch

from lightning_saturation import (
    DimensionMonitor,
    FreezeTraining,
    SaturationMonitor,
    SimilarityMonitor,
    SpectrumMonitor,
)


@pytest.mark.parametrize(
    "monitor",
    [
        SaturationMonitor(layers=["a", "b"], max_samples=500, state_device="cpu", save_dir="out"),
        DimensionMonitor(per_class=True),
        SpectrumMonitor(bins=30),
        SimilarityMonitor(probes=torch.zeros(1000, 3)),
        FreezeTraining(blocks=[["a", "b"], "c"]),
    ],
    ids=lambda monitor: type(monitor).__name__,
)
def test_every_argument_is_told_as_plain_data(monitor):
    told = monitor._arguments()
    assert set(told) == set(inspect.signature(type(monitor).__init__).parameters) - {"self"}
    assert json.loads(json.dumps(told)) == told


def test_values_are_those_in_force():
    told = SaturationMonitor(pooling="positions", state_device="cpu")._arguments()
    assert (told["max_samples"], told["state_device"], told["stages"]) == ("auto", "cpu", ["train", "val"])
    assert DimensionMonitor(discard=0.2)._arguments()["discard"] == 0.2
    assert SpectrumMonitor(bins=30)._arguments()["bins"] == 30
    assert SimilarityMonitor(probes=torch.zeros(1000, 3))._arguments()["probes"] == "Tensor"
    assert SimilarityMonitor(probes=[torch.zeros(2)] * 3)._arguments()["probes"] == 3 * ["Tensor"]
    assert SimilarityMonitor(probes=[torch.zeros(2)] * 300)._arguments()["probes"] == "list"
