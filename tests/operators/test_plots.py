"""Figures of operator spectra: bars that add up, spikes in their colour, marks, and what is refused."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from lightning_saturation.operators.density import eigenvalue_histogram
from lightning_saturation.operators.layer_operator import LayerOperator
from lightning_saturation.operators.plots import (
    BULK,
    LEAST_COUNT,
    SPIKES,
    evolution_figure,
    histogram_figure,
    norms_figure,
)
from lightning_saturation.operators.report import SpectrumReport


def report(layers=2, epoch=0, **options):
    torch.manual_seed(epoch)
    options = {"bins": 40, "spikes": 5, "probes": 4, "degree": 60, "method": "stochastic", **options}
    found = {
        f"layer{i}": eigenvalue_histogram(LayerOperator(nn.Linear(90, 60 + i), (90,)), **options) for i in range(layers)
    }
    return SpectrumReport(layers=found, epoch=epoch, step=10 * epoch, learning_rates=(0.1 if epoch < 2 else 0.01,))


def colours(axes):
    from matplotlib.colors import to_hex

    return {to_hex(patch.get_facecolor()): patch for patch in axes.patches}


def test_bars_are_the_counts_and_bins_of_spikes_have_their_colour():
    it = report(1)
    histogram = it.layers["layer0"]
    axes = histogram_figure(it).axes[0]
    patches = colours(axes)
    assert set(patches) == {BULK, SPIKES}
    bulk, spikes = (patches[colour].get_data().values for colour in (BULK, SPIKES))
    drawn = torch.as_tensor(bulk).clamp(min=LEAST_COUNT) + torch.as_tensor(spikes) - LEAST_COUNT
    torch.testing.assert_close(drawn, histogram.counts.clamp(min=LEAST_COUNT))
    assert (spikes > LEAST_COUNT).sum() >= 1
    assert axes.get_yscale() == "log"
    assert set(colours(histogram_figure(report(1, method="exact")).axes[0])) == {BULK}


def test_many_layers_are_thinned_and_the_title_says_so():
    figure = histogram_figure(report(5), most=2)
    assert [axes.get_title() for axes in figure.axes] == ["layer0 (estimated)", "layer4 (estimated)"]
    assert "(2 of 5)" in figure.get_suptitle()


def test_norms_are_lines_with_the_learning_rate_marked():
    reports = [report(2, epoch) for epoch in range(4)]
    axes = norms_figure(reports).axes[0]
    line = next(line for line in axes.lines if line.get_label() == "layer1")
    assert list(line.get_xdata()) == [0, 1, 2, 3]
    assert list(line.get_ydata()) == [it.layers["layer1"].largest for it in reports]
    assert [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == ":"] == [2]
    distant = norms_figure([reports[0], reports[3]]).axes[0].patches[0]
    assert (distant.get_x(), distant.get_x() + distant.get_width()) == (0, 3)


def test_evolution_shows_first_and_last_on_one_axis_of_counts():
    reports = [report(1, epoch) for epoch in range(7)]
    figure = evolution_figure(reports, "layer0", most=3)
    assert [axes.get_title().splitlines()[0] for axes in figure.axes] == [
        "before training (estimated)",
        "after epoch 3 (estimated)",
        "after epoch 6 (estimated)",
    ]
    assert len({axes.get_ylim() for axes in figure.axes}) == 1


def test_what_is_not_there_is_refused():
    it = report(1)
    with pytest.raises(ValueError, match="`layers` with a spectrum"):
        histogram_figure(it, ["nowhere"])
    with pytest.raises(ValueError, match="`layers` with a spectrum"):
        histogram_figure(replace(it, layers={}))
    with pytest.raises(ValueError, match="at least one report"):
        norms_figure([])
    with pytest.raises(ValueError, match="'nowhere'"):
        evolution_figure([it], "nowhere")
