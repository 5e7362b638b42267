"""Exact spectra beyond the size of one matrix: groups one by one, circular convolutions frequency by frequency."""

import numpy as np
import pytest
import torch
from torch import nn

from lightning_saturation.operators.circular import circular_work
from lightning_saturation.operators.density import eigenvalue_histogram
from lightning_saturation.operators.layer_operator import LayerOperator
from tests.operators.test_density import errors, grouped_eigenvalues, random_layer


def test_groups_are_solved_one_by_one_beyond_the_size_of_a_whole_matrix():
    layer, shape = random_layer(16, 32, groups=8), (16, 17, 17)
    histogram = eigenvalue_histogram(LayerOperator(layer, shape))
    truth = grouped_eigenvalues(layer, shape)
    assert (histogram.method, histogram.size, histogram.products) == ("exact", 4624, 4624)
    assert errors(histogram, truth)[0] <= 4 / 4624
    assert histogram.spikes.numpy() == pytest.approx(np.sort(truth)[::-1][:32], rel=1e-10)


@pytest.mark.parametrize("size", [(23, 24), (24, 23)])
@pytest.mark.parametrize("options", [{}, {"groups": 4}, {"dilation": 2, "padding": 2}])
def test_circular_convolutions_are_solved_by_frequency_beyond_the_size_of_a_whole_matrix(size, options):
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 12, 3, padding_mode="circular", bias=False, **{"padding": 1, **options})
    histogram = eigenvalue_histogram(LayerOperator(layer, (8, *size)))
    assert (histogram.method, histogram.size, histogram.products) == ("exact", 8 * 23 * 24, 0)
    assert histogram.trace == pytest.approx(LayerOperator(layer, (8, *size)).trace(), rel=1e-12)
    assert float(histogram.spikes.sum()) <= histogram.trace
    if not options:
        transform = np.fft.fft2(layer.weight.detach().double().numpy(), size, axes=(2, 3)).transpose(2, 3, 0, 1)
        truth = np.linalg.svd(transform, compute_uv=False).ravel() ** 2
        assert errors(histogram, truth)[0] <= 8 / histogram.size


@pytest.mark.parametrize(
    "options", [{}, {"groups": 2}, {"dilation": 2, "padding": 2}, {"kernel_size": (5, 3), "padding": (2, 1)}]
)
@pytest.mark.parametrize("channels", [(2, 6), (6, 2)])
@pytest.mark.parametrize("size", [(5, 6), (4, 3)])
def test_frequencies_give_the_eigenvalues_of_the_dense_matrix(options, channels, size):
    torch.manual_seed(1)
    options = {"kernel_size": 3, "padding": 1, **options}
    operator = LayerOperator(nn.Conv2d(*channels, padding_mode="circular", **options), (channels[0], *size))
    matrix = operator.matvec(torch.eye(operator.shape[1], dtype=torch.float64))
    truth = torch.linalg.svdvals(matrix).square().sort().values
    _, find = operator.frequencies()
    torch.testing.assert_close(find().sort().values, truth, rtol=1e-10, atol=1e-10)


def test_what_shifts_do_not_commute_with_has_no_frequencies():
    circular = {"padding_mode": "circular", "padding": 1}
    for layer in (
        nn.Conv2d(2, 3, 3, padding=1),
        nn.Conv2d(2, 3, 3, stride=2, **circular),
        nn.Conv2d(2, 3, 5, **circular),  # its output is smaller
        nn.ConvTranspose2d(2, 3, 3, padding=1),
    ):
        assert LayerOperator(layer, (2, 8, 8)).frequencies() is None
    assert LayerOperator(nn.Linear(3, 4), (3,)).frequencies() is None
    assert LayerOperator(nn.Conv2d(512, 512, 3, **circular), (512, 32, 32)).frequencies() is None  # 2 GiB of kernels


def test_the_work_is_that_of_all_frequencies_of_all_groups():
    """Of 5 × 7 frequencies 5 × 4 are not the opposite of others; each group has a matrix of 6 × 4."""
    layer = nn.Conv2d(8, 12, 3, padding=1, padding_mode="circular", groups=2)
    operator = LayerOperator(layer, (8, 5, 7))
    assert circular_work(operator.weight, operator._geometry, 2) == 4 * (5 * 4) * 2 * 4**3
