"""The decay exponent and the eigenvalue of a rank, read off a histogram."""

import math

import pytest
import torch

from lightning_saturation.operators.density import eigenvalue_histogram
from lightning_saturation.operators.histogram import decay, eigenvalues_at
from lightning_saturation.operators.linear_map import MatrixOperator


def spectrum(values, **options):
    return eigenvalue_histogram(MatrixOperator(values.double().sqrt().diag()), **options)


@pytest.mark.parametrize("exponent", [0.3, 0.7, 1.0])
@pytest.mark.parametrize("method", ["exact", "stochastic"])
def test_a_power_law_gives_its_exponent(exponent, method):
    ranks = torch.arange(1, 1001).double()
    histogram = spectrum(5 * ranks**-exponent, method=method, **({} if method == "exact" else {"probes": 20}))
    found = histogram.decay
    assert found.exponent == pytest.approx(exponent, rel=0.03)
    assert 0.99 < found.r_squared <= 1
    assert (found.first, found.last) == (1, 100)


def test_the_range_ends_where_nothing_is_resolved():
    ranks = torch.arange(1, 1001).double()
    histogram = spectrum(ranks**-2, spikes=8)
    assert histogram.decay.last == 15  # 15^-2 > 1/250 > 16^-2
    assert histogram.decay.exponent == pytest.approx(2, rel=0.03)
    assert decay(histogram, first=2, last=8).exponent == pytest.approx(2, rel=1e-6)


def test_flat_and_single_spectra():
    assert spectrum(torch.ones(200)).decay.exponent == pytest.approx(0, abs=0.01)
    assert math.isnan(spectrum(torch.ones(1)).decay.exponent)


def test_eigenvalues_at_a_rank_are_the_spikes_and_then_within_a_bin():
    values = torch.rand(500, generator=torch.Generator().manual_seed(0)).double().sort(descending=True).values
    histogram = spectrum(values, spikes=10)
    found = eigenvalues_at(histogram, torch.arange(1, 501).double())
    torch.testing.assert_close(found[:10], values[:10], rtol=1e-10, atol=0)
    assert (found - values).abs().max() <= 1.01 * histogram.edges[1]
    assert found.diff().max() <= 1e-12
    assert eigenvalues_at(histogram, torch.tensor([501.0, 600.0]).double()).tolist() == [0.0, 0.0]  # there are none


@pytest.mark.parametrize(("first", "last"), [(0, 10), (5, 5), (7, 3), (1, 51)])
def test_impossible_ranges_are_refused(first, last):
    with pytest.raises(ValueError, match="`first` < `last` <= 50"):
        decay(spectrum(torch.ones(50)), first=first, last=last)


def test_five_ranks_are_a_range_and_four_are_not():
    histogram = spectrum(torch.arange(1, 101).double() ** -0.7, spikes=8)
    assert decay(histogram, last=5).exponent == pytest.approx(0.7, abs=1e-6)
    assert math.isnan(decay(histogram, last=4).exponent)


def test_below_the_spikes_eigenvalues_are_spread_evenly_over_their_bin():
    """Ranks 3 and 4 are the third and fourth of the four within the top bin, from 0.9 to 1."""
    histogram = spectrum(torch.tensor([1.0, 0.95, 0.94, 0.93, 0.3, 0.1]), spikes=2, bins=10)
    assert histogram.counts.tolist()[3:] == [1, 0, 0, 0, 0, 0, 4]
    found = eigenvalues_at(histogram, torch.tensor([1.0, 2, 3, 4]).double())
    assert found.tolist() == pytest.approx([1.0, 0.95, 0.9375, 0.9125], rel=1e-6)
