"""DFT-CCA: equal to CCA of the flattened maps where shifts are symmetries, mergeable, and honest about sizes."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import resample

from lightning_saturation.similarity.cca import cca
from lightning_saturation.similarity.dft import (
    dft_cca,
    fourier_resize,
    frequency_moments,
    half_plane_weights,
    merge_frequency_moments,
)


def shift_closed_maps(height, width, x_channels=2, y_channels=2, images=4, seed=0):
    """Two circular convolutions of images that come with all of their shifts."""
    rng = np.random.default_rng(seed)
    base = torch.from_numpy(rng.standard_normal((images, 2, height, width)))
    shifts = itertools.product(range(height), range(width))
    data = torch.cat([base.roll(shift, dims=(2, 3)) for shift in shifts])
    kernels = [torch.from_numpy(rng.standard_normal((c, 2, 2, 2))) for c in (x_channels, y_channels)]
    padded = torch.nn.functional.pad(data, (0, 1, 0, 1), mode="circular")
    x, y = (torch.nn.functional.conv2d(padded, kernel) for kernel in kernels)
    return x, y.square() + 0.1 * y


@pytest.mark.parametrize(("height", "width"), [(4, 4), (3, 5), (5, 4), (4, 3), (1, 4)])
@pytest.mark.parametrize("delta", [None, 0.9])
def test_on_shift_closed_data_it_is_cca_of_the_flattened_maps(height, width, delta):
    # Enough images for full rank: height · width · images samples against height · width · channels features.
    x, y = shift_closed_maps(height, width, images=8)
    found = dft_cca(x, y, delta=delta)
    full = cca(x.flatten(1), y.flatten(1), delta=delta)
    if delta is None:
        assert len(full.correlations) == 2 * height * width
        np.testing.assert_allclose(found.spectrum, full.correlations, atol=1e-9)
        torch.testing.assert_close(found.mean, full.mean, rtol=0, atol=1e-10)
    else:
        # Eigenvalues come in equal pairs: a threshold between two of them may keep one more here than there.
        assert abs(len(found.spectrum) - len(full.correlations)) <= 1


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_the_scale_of_one_channel_does_not_matter(scale):
    x, y = shift_closed_maps(4, 3, images=8)
    scales = torch.tensor([1.0, scale], dtype=torch.float64)[:, None, None]
    torch.testing.assert_close(dft_cca(x * scales, y).spectrum, dft_cca(x, y).spectrum, rtol=0, atol=1e-7)


def test_weights_count_every_frequency_once():
    for height, width in itertools.product((1, 2, 5), (1, 2, 3, 8)):
        assert half_plane_weights(height, width).sum() == height * width


def test_one_pixel_is_plain_cca():
    rng = np.random.default_rng(0)
    x, y = (torch.from_numpy(rng.standard_normal((60, c, 1, 1))) for c in (4, 3))
    torch.testing.assert_close(dft_cca(x, y).correlations[0, 0], cca(x[..., 0, 0], y[..., 0, 0]).correlations)


def test_channels_may_be_mixed_and_maps_shifted_together():
    x, y = shift_closed_maps(4, 4, images=8)
    mixed = torch.einsum("nchw,cd->ndhw", x, torch.tensor([[2.0, 1.0], [-1.0, 3.0]], dtype=torch.float64))
    torch.testing.assert_close(dft_cca(mixed.roll(1, -1) + 5, y).mean, dft_cca(x, y).mean, rtol=0, atol=1e-9)


@settings(max_examples=10, deadline=None)
@given(cut=st.integers(0, 30), offset=st.sampled_from([0.0, 1e4]))
def test_batches_merge_to_the_whole(cut, offset):
    rng = np.random.default_rng(1)
    x, y = (torch.from_numpy(rng.standard_normal((30, c, 4, 5))) + offset for c in (3, 2))
    whole = frequency_moments(x, y)
    merged = merge_frequency_moments(frequency_moments(x[:cut], y[:cut]), frequency_moments(x[cut:], y[cut:]))
    torch.testing.assert_close(merged.scatter, whole.scatter, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(merged.mean, whole.mean)
    torch.testing.assert_close(dft_cca(merged).mean, dft_cca(x, y).mean, rtol=0, atol=1e-8)


def test_no_maps_merge_with_any():
    rng = np.random.default_rng(2)
    x, y = (torch.from_numpy(rng.standard_normal((30, c, 4, 5))) for c in (3, 2))
    whole, nothing = frequency_moments(x, y), frequency_moments(x[:0], y[:0])
    assert nothing.scatter.shape == whole.scatter.shape
    for merged in (merge_frequency_moments(whole, nothing), merge_frequency_moments(nothing, whole)):
        torch.testing.assert_close(merged.scatter, whole.scatter)


@pytest.mark.parametrize(("old", "new"), [(8, 4), (8, 5), (9, 4), (7, 3), (6, 1), (5, 2)])
def test_resize_is_scipys_fourier_resampling(old, new):
    maps = np.random.default_rng(2).standard_normal((3, 2, old, old))
    expected = resample(resample(maps, new, axis=-2), new, axis=-1)
    np.testing.assert_allclose(fourier_resize(torch.from_numpy(maps), (new, new)), expected, atol=1e-12)


def test_sizes_that_differ_are_an_error_or_cut_down_on_request():
    rng = np.random.default_rng(3)
    x, y = (torch.from_numpy(rng.standard_normal((50, 2, size, size))) for size in (6, 4))
    with pytest.raises(ValueError, match=r"one height and width, got \(6, 6\) and \(4, 4\); `resize=True`"):
        dft_cca(x, y)
    torch.testing.assert_close(dft_cca(x, y, resize=True).mean, dft_cca(fourier_resize(x, (4, 4)), y).mean)
    with pytest.raises(ValueError, match=r"`size` from 1 to \(4, 4\), got \(5, 5\)"):
        fourier_resize(y, (5, 5))


def test_bad_input():
    maps = torch.zeros(5, 2, 3, 3)
    with pytest.raises(ValueError, match="maps of the same samples, got 5 and 4"):
        dft_cca(maps, maps[1:])
    with pytest.raises(TypeError, match="Expected maps `y`"):
        dft_cca(maps)
    assert dft_cca(maps, maps).mean.isnan()
    varied = torch.from_numpy(np.random.default_rng(4).standard_normal((60, 2, 3, 3)))
    holed = varied.clone()
    holed[7, 0, 1, 1] = torch.nan
    with pytest.warns(UserWarning, match="1 of 60 samples"):
        found = dft_cca(holed, varied)
    torch.testing.assert_close(found.mean, dft_cca(varied, varied).mean)
    dft_cca(varied[:5], varied[5:10])  # enough: no correlation is forced
    with pytest.warns(UserWarning, match="3 samples are too few for 2 and 2 directions"):
        dft_cca(varied[:3], varied[:3])


def test_dependent_channels_add_no_correlations():
    x, y = shift_closed_maps(3, 4, images=8)
    x_too, y_too = (torch.cat([maps, maps[:, :1] - 2 * maps[:, 1:]], dim=1) for maps in (x, y))
    for other in (y, y_too):
        np.testing.assert_allclose(dft_cca(x_too, other).spectrum, dft_cca(x, y).spectrum, atol=1e-9)
