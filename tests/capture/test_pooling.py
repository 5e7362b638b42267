"""Outputs as rows, for every layout, against loops in NumPy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_saturation.capture.pooling import Layout, check_pooling, pool
from lightning_saturation.capture.rows import rows_of

LAWS = settings(max_examples=60, deadline=None)
POOLINGS = ("mean", "max", "median", "positions", "flatten", "last")
LAYOUTS = {
    "linear": (Layout(), [1, 2, 3, 4]),
    "conv1d": (Layout(features=-2, unbatched=2), [2, 3]),
    "conv2d": (Layout(features=-3, unbatched=3), [3, 4]),
    "conv3d": (Layout(features=-4, unbatched=4), [4, 5]),
    "batch first": (Layout(unbatched=2), [2, 3]),
    "time first": (Layout(batch=1, unbatched=2), [2, 3]),
}


def reference(output, layout, pooling):
    """Rows by loops: sample by sample, position by position."""
    x = output.double().numpy()
    batch = layout.batch
    if x.ndim <= layout.unbatched:
        x, batch = x[None], 0
    x = np.moveaxis(x, (batch, x.ndim + layout.features), (0, -1))
    rows = []
    for sample in x:
        positions = [sample[index] for index in np.ndindex(sample.shape[:-1])]  # () where there are none
        if pooling == "positions":
            rows += positions
            continue
        stacked = np.stack(positions)
        rows.append(
            {
                "mean": stacked.mean(0),
                "max": stacked.max(0),
                "median": np.sort(stacked, 0)[(len(stacked) - 1) // 2],
                "flatten": stacked.reshape(-1),
                "last": stacked[-1],
            }[pooling]
        )
    return np.stack(rows)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("kind", LAYOUTS)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_every_layout_is_pooled_as_by_hand(kind, pooling, data):
    layout, dimensions = LAYOUTS[kind]
    shape = data.draw(st.lists(st.integers(1, 4), min_size=dimensions[0], max_size=dimensions[-1]))
    output = torch.from_numpy(np.random.default_rng(len(shape)).standard_normal(shape))
    rows = pool(output, layout=layout, pooling=pooling)
    assert rows.ndim == 2
    np.testing.assert_allclose(rows, reference(output, layout, pooling), atol=1e-12)


@LAWS
@given(st.integers(1, 4), st.integers(1, 4), st.sampled_from(POOLINGS))
def test_without_positions_all_poolings_agree(samples, features, pooling):
    output = torch.arange(samples * features, dtype=torch.float32).view(samples, features)
    assert torch.equal(pool(output, pooling=pooling), output)
    image = output[:, :, None, None]
    assert torch.equal(pool(image, layout=Layout(features=-3, unbatched=3), pooling=pooling), output)


@pytest.mark.parametrize("pooling", ["mean", "max", "median"])
def test_the_order_of_positions_does_not_matter(pooling):
    output = torch.randn(3, 7, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(pool(output.flip(1), pooling=pooling), pool(output, pooling=pooling))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_averaged_in_float32(dtype):
    output = (torch.rand(4, 1000, 3, generator=torch.Generator().manual_seed(0)) + 100).to(dtype)
    rows = pool(output)
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows.double(), output.double().mean(1), rtol=1e-6, atol=0)


def test_float64_stays_float64():
    assert pool(torch.ones(2, 3, 4, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize("pooling", POOLINGS)
def test_channels_last_memory_is_no_other_layout(pooling):
    output = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    conv = Layout(features=-3, unbatched=3)
    rows = pool(output.to(memory_format=torch.channels_last), layout=conv, pooling=pooling)
    torch.testing.assert_close(rows, pool(output, layout=conv, pooling=pooling))


@pytest.mark.parametrize("pooling", [p for p in POOLINGS if p != "flatten"])
def test_ragged_sequences_are_pooled_without_padding(pooling):
    lengths = [3, 1, 4]
    sequences = [torch.randn(length, 2) for length in lengths]
    expected = np.concatenate([reference(s, Layout(unbatched=2), pooling) for s in sequences])
    np.testing.assert_allclose(rows_of(torch.nn.Identity(), sequences, pooling, Layout()), expected, atol=1e-6)


@pytest.mark.parametrize("pooling", ["avg", "", "Mean"])
def test_an_unknown_pooling_names_the_known_ones(pooling):
    with pytest.raises(ValueError, match=rf"Expected `pooling` to be one of \('mean', .*'last'\), got {pooling!r}"):
        check_pooling(pooling)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_known_pooling_comes_back(pooling):
    assert check_pooling(pooling) == pooling
