"""compare_representations: equal to the functions on stored activations, for any batches, memory and form of maps."""

import numpy as np
import pytest
import torch
from torch import nn

from lightning_saturation import compare_representations
from lightning_saturation.functional import dft_cca, linear_cka, procrustes, pwcca, svcca
from lightning_saturation.similarity.dft import fourier_resize


def network(seed, channels=3):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, channels, 3, padding=1),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(channels, 4, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


def images(samples=90, side=8, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((samples, 2, side, side))).float() + 3


def outputs(model, data):
    """Every layer's output on ``data`` by slicing the network: no hook involved."""
    model.eval()
    with torch.no_grad():
        return {name: model[: int(name) + 1](data).double() for name in ("0", "4", "8")}


def pooled(output):
    return output.flatten(2).mean(2) if output.ndim == 4 else output


A, B = network(0), network(1, channels=5)
FUNCTIONS = {
    "svcca": lambda x, y: svcca(x, y),
    "pwcca": lambda x, y: pwcca(x, y).mean,
    "cka": lambda x, y: linear_cka(x, y),
    "debiased_cka": lambda x, y: linear_cka(x, y, debiased=True),
    "procrustes": lambda x, y: procrustes(x, y, normalize=True),
}


@pytest.mark.parametrize("method", FUNCTIONS)
@pytest.mark.parametrize("other", [B, A], ids=["other", "itself"])
def test_pooled_layers_match_the_functions(method, other):
    data = images()
    matrix = compare_representations(A, other, data.split(40), method=method, progress=False)
    left, right = outputs(A, data), outputs(other, data)
    assert matrix.rows == matrix.columns == ("0", "4", "8")
    assert matrix.samples == 90
    for row in matrix.rows:
        for column in matrix.columns:
            expected = FUNCTIONS[method](pooled(left[row]), pooled(right[column]))
            assert matrix[row, column] == pytest.approx(float(expected), abs=1e-5), (row, column)
    if other is A:
        assert torch.equal(matrix.values, matrix.values.T)


def as_map(output):
    return output if output.ndim == 4 else output[..., None, None]


@pytest.mark.parametrize("method", ["svcca", "dft_cca"])
def test_maps_of_different_size_meet_at_the_smaller(method):
    data = images()
    matrix = compare_representations(
        A, B, data.split(25), method=method, pooling="positions", resize=True, progress=False
    )
    left, right = outputs(A, data), outputs(B, data)
    for row in matrix.rows:
        for column in matrix.columns:
            x, y = as_map(left[row]), as_map(right[column])
            size = min(x.shape[2], y.shape[2]), min(x.shape[3], y.shape[3])
            x, y = fourier_resize(x, size), fourier_resize(y, size)
            if method == "dft_cca":
                expected = dft_cca(x, y).mean
            else:
                expected = svcca(*(maps.permute(0, 2, 3, 1).flatten(0, 2) for maps in (x, y)))
            assert matrix[row, column] == pytest.approx(float(expected), abs=1e-5), (row, column)


@pytest.mark.parametrize("method", ["svcca", "debiased_cka", "dft_cca"])
def test_less_memory_means_more_passes_and_the_same_numbers(method):
    batches = images().split(30)
    options = {"method": method, "resize": True, "progress": False}
    whole = compare_representations(A, B, batches, **options)
    pieces = compare_representations(A, B, batches, **options, memory=whole.state_bytes * 3 // 5)
    torch.testing.assert_close(pieces.values, whole.values, rtol=0, atol=1e-12)
    assert pieces.state_bytes <= whole.state_bytes * 3 // 5
    once = (batch for batch in batches)
    with pytest.raises(ValueError, match=r"can be iterated over \d+ times.*`memory` is \d+; got an iterator"):
        compare_representations(A, B, once, **options, memory=whole.state_bytes * 3 // 5)
    compare_representations(A, B, (batch for batch in batches), **options)


def test_the_stated_memory_is_what_the_sums_take():
    matrix = compare_representations(A, B, [images()], progress=False)
    assert matrix.state_bytes == 8 * (3**2 + 4**2 + 3**2 + 5**2 + 4**2 + 3**2 + (3 + 4 + 3) * (5 + 4 + 3))


def test_tokens_are_positions():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    tokens = torch.randn(20, 7, 4)
    matrix = compare_representations(model, model, [tokens], pooling="positions", progress=False)
    hidden = model[0](tokens).flatten(0, 1).detach()
    assert matrix["0", "2"] == pytest.approx(float(svcca(hidden, model(tokens).flatten(0, 1).detach())), abs=1e-6)
    assert matrix.samples == 140


def test_the_models_are_left_as_they_were():
    model = network(0)
    model.train()
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    compare_representations(model, B, [images()], progress=False)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    assert not model[1].training
    assert not any(module._forward_hooks for module in model.modules())


def test_bad_samples_are_left_out_of_all_layers():
    data = images()
    holed = data.clone()
    holed[3, 0, 1, 1] = torch.nan
    with pytest.warns(UserWarning, match="1 samples hold NaN or infinity"):
        found = compare_representations(A, B, holed.split(30), progress=False)
    keep = torch.arange(90) != 3
    torch.testing.assert_close(found.values, compare_representations(A, B, [data[keep]], progress=False).values)


def test_few_samples_are_one_warning():
    with pytest.warns(UserWarning, match=r"In \d of 9 pairs of layers: 5 samples are too few") as caught:
        compare_representations(A, B, [images(5)], method="pwcca", progress=False)
    assert len(caught) == 1


def test_bad_input():
    with pytest.raises(ValueError, match=r"got \(8, 8\) from '0' and \(4, 4\) from '4'.*`resize=True`"):
        compare_representations(A, B, [images()], pooling="positions", progress=False)
    with pytest.raises(ValueError, match="`method` to be one of"):
        compare_representations(A, B, [images()], method="cosine", progress=False)
    with pytest.raises(ValueError, match=r"did you mean|there are"):
        compare_representations(A, B, [images()], layers=["conv9"], progress=False)
    with pytest.raises(ValueError, match="at least one batch"):
        compare_representations(A, B, [], progress=False)
    with pytest.raises(ValueError, match=r"`delta` in \(0, 1\]"):
        compare_representations(A, B, [images()], delta=2.0, progress=False)
    twice = nn.Linear(4, 4)
    model = nn.Sequential(twice, nn.ReLU(), twice, nn.Linear(4, 2))
    with pytest.warns(UserWarning, match=r"\['0'\] do not put out one row for each of the 10 samples"):
        assert compare_representations(model, model, [torch.randn(10, 4)], progress=False).rows == ("3",)


def test_records_and_picture():
    matrix = compare_representations(A, B, [images()], layers=["0", "4"], progress=False)
    assert matrix.to_records()[1] == {"row": "0", "column": "4", "method": "svcca", "similarity": matrix["0", "4"]}
    assert matrix.diagonal == {"0": matrix["0", "0"], "4": matrix["4", "4"]}
    figure = matrix.plot(row_label="first network")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["0", "4"]
    assert figure.axes[0].get_ylabel() == "first network"
