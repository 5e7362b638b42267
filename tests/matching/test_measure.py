"""match_networks: a network with its units shuffled is found again; numbers are those of the stored activations."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from lightning_saturation import match_networks


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 2), nn.Flatten(), nn.Linear(45, 4))


def images(samples=60):
    return torch.from_numpy(np.random.default_rng(0).standard_normal((samples, 2, 6, 6))).float()


def shuffled(model):
    other, order = copy.deepcopy(model), torch.tensor([3, 0, 5, 1, 4, 2])
    with torch.no_grad():
        other[0].weight.copy_(model[0].weight[order])
        other[0].bias.copy_(model[0].bias[order])
        other[2].weight.copy_(model[2].weight[:, order])
    return other, order


def test_shuffled_units_are_found_again():
    model = network()
    other, order = shuffled(model)
    found = match_networks(model, other, images().split(25), progress=False)
    assert list(found.layers) == ["0", "2", "4"]
    match = found.layers["0"]
    assert torch.equal(match.bipartite.x_partner, order)
    assert match.samples == 60 * 16
    first, second = match.order
    torch.testing.assert_close(match.between[first, second], torch.ones(6, dtype=torch.float64))
    torch.testing.assert_close(match.within[0][first][:, first], match.within[1][second][:, second])
    assert match.mapping.loss[0] < 1e-8
    assert [record["bipartite"] for record in found.to_records()] == pytest.approx([1.0] * 3)
    assert found.pairs("0")[0]["correlation"] == pytest.approx(1.0)
    assert {pair["partner"] for pair in found.pairs("0")} == set(range(6))


def test_numbers_are_those_of_the_activations():
    model, other, data = network(0), network(1), images()
    match = match_networks(model, other, [data], progress=False).layers["2"]
    with torch.no_grad():
        rows = [m[:3](data).movedim(1, -1).flatten(0, 2).numpy() for m in (model, other)]
    expected = np.corrcoef(rows[0].T, rows[1].T)
    np.testing.assert_allclose(match.between, expected[:5, 5:], atol=1e-6)
    np.testing.assert_allclose(match.within[1], expected[5:, 5:], atol=1e-6)
    pooled = match_networks(model, other, [data], pooling="mean", progress=False).layers["2"]
    means = [r.reshape(60, -1, 5).mean(1) for r in rows]
    np.testing.assert_allclose(pooled.between, np.corrcoef(means[0].T, means[1].T)[:5, 5:], atol=1e-5)


@pytest.mark.parametrize("batch", [60, 7, 1])
def test_every_other_sample_is_held_out_however_they_come(batch):
    """Networks that share nothing seem to, on the samples that partners and mappings were chosen by."""
    model, other, data = network(0), network(1), images()
    options = {"layers": ["4"], "decay": [0.0], "progress": False}
    found = match_networks(model, other, data.split(batch), held_out=True, **options).layers["4"]
    fit = match_networks(model, other, [data[::2]], **options).layers["4"]
    with torch.no_grad():
        rows = [m(data[1::2]).double() for m in (model, other)]
    between = torch.from_numpy(np.corrcoef(rows[0].T.numpy(), rows[1].T.numpy()))[:4, 4:]
    assert torch.equal(found.bipartite.y_partner, fit.bipartite.y_partner)
    torch.testing.assert_close(
        found.bipartite.y_correlation, between[range(4), fit.bipartite.y_partner], atol=1e-5, rtol=0
    )
    torch.testing.assert_close(found.mapping.weights, fit.mapping.weights, atol=1e-5, rtol=0)
    x, y = ((r - r.mean(0)) / r.std(0, correction=0) for r in rows)
    loss = 0.5 * (y - x @ fit.mapping.weights[0]).square().mean()
    torch.testing.assert_close(found.mapping.loss[0], loss, atol=1e-5, rtol=0)
    whole = match_networks(model, other, [data], **options).layers["4"]
    torch.testing.assert_close(found.between, whole.between)
    assert found.samples == whole.samples == 60
    with pytest.raises(ValueError, match="at least two samples to hold one out"):
        match_networks(model, other, [data[:1]], held_out=True, **options)


def test_table_and_pictures():
    found = match_networks(network(0), network(1), [images()], decay=[0.0, 0.1], progress=False)
    assert "loss at decay 0.1" in str(found)
    assert len(str(found).splitlines()) == 5
    figure = found.layers["0"].plot(title="first layer")
    assert len([axes for axes in figure.axes if axes.get_images()]) == 6
    lines = found.plot().axes[0].get_lines()
    assert list(lines[0].get_ydata()) == found.layers["0"].mapping.loss.tolist()


def test_bad_input():
    with pytest.raises(ValueError, match="at least one batch"):
        match_networks(network(), network(), [], progress=False)
    other = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1))
    with pytest.raises(ValueError, match="one height and width in '0' of both"):
        match_networks(network(), other, [images()], layers=["0"], progress=False)
