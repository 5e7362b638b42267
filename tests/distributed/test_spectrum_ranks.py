"""Ranks share layers and end up with one report, whoever ran out of time."""

import pytest
import torch
import torch.distributed as dist
from torch import nn

from lightning_saturation.operators.measure import measure_spectrum, spectra_over_ranks
from tests.distributed.ranks import on_ranks


def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 6, 3), nn.Flatten(), nn.Linear(96, 5))


def numbers(report):
    return {name: (h.counts, h.spikes, h.products) for name, h in report.layers.items()}, report.missing


def assert_same(first, second):
    assert list(first[0]) == list(second[0])
    assert first[1] == second[1]
    for name, (counts, spikes, products) in first[0].items():
        assert torch.equal(counts, second[0][name][0])
        assert torch.equal(spikes, second[0][name][1])
        assert products == second[0][name][2]


@pytest.mark.parametrize("world", [2, 3, 4])
def test_any_number_of_ranks_gives_the_report_of_one(world):
    options = {"spikes": 4, "probes": 3, "degree": 40}
    torch.set_num_threads(1)
    alone = numbers(measure_spectrum(network(), torch.zeros(1, 2, 6, 6), progress=False, **options))
    assert len(alone[0]) == 3

    def job(rank):
        group = dist.group.WORLD
        x = torch.zeros(1, 2, 6, 6)
        return numbers(measure_spectrum(network(), x, progress=False, process_group=group, **options))

    for result in on_ranks(world, job):
        assert_same(result, alone)


def test_a_rank_out_of_time_and_a_rank_with_other_layers_agree_on_one_report():
    def job(rank):
        layers = dict(network().named_children())
        layers = {name: layer for name, layer in layers.items() if not isinstance(layer, nn.Flatten)}
        shapes = {"0": {(2, 6, 6)}, "1": {(4, 6, 6)}, "3": {(96,)}}
        if rank == 1:
            del shapes["0"]
        options = {"bins": 20, "spikes": 4}
        seconds = None if rank == 0 else 1e-9
        return numbers(spectra_over_ranks(layers, shapes, options, seconds=seconds, group=dist.group.WORLD))

    first, second = on_ranks(2, job)
    assert_same(first, second)
    assert set(first[0]) | set(first[1]) == {"0", "1", "3"}
    assert not set(first[0]) & set(first[1])
    assert any("ut of time" in why for why in first[1].values())
