"""Rows on their way into a covariance: none lost, none twice, errors at once."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_saturation.covariance import row_buffer as module
from lightning_saturation.covariance.accumulation import Accumulation
from lightning_saturation.covariance.moments import covariance
from lightning_saturation.covariance.row_buffer import RowBuffer
from lightning_saturation.covariance.thinning import take, thinning


def rows(seed, samples, features=3, dtype=torch.float32):
    x = np.random.default_rng(seed).standard_normal((samples, features)) * np.arange(1, features + 1) + 1e4
    return torch.from_numpy(x).to(dtype)


def assert_holds(buffer, parts):
    x = torch.cat([part.double() for part in parts]).numpy()
    m = buffer.moments()
    reference = np.cov(x.T)
    assert int(m.samples) == len(x)
    assert np.linalg.norm(covariance(m).numpy() - reference) <= 1e-10 * np.linalg.norm(reference)


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 60), min_size=1, max_size=8),
    dtypes=st.lists(st.sampled_from([torch.bfloat16, torch.float32, torch.float64]), min_size=8, max_size=8),
    looks=st.lists(st.booleans(), min_size=8, max_size=8),
)
def test_whatever_comes_in_is_held_once(sizes, dtypes, looks):
    parts = [rows(i, 2 + size, dtype=dtype) for i, (size, dtype) in enumerate(zip(sizes, dtypes, strict=False))]
    buffer = RowBuffer()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_LEAST_ROWS", 25)  # some batches fit, some do not
        for index, part in enumerate(parts):
            buffer.add(part)
            if looks[index]:
                assert_holds(buffer, parts[: index + 1])
    assert_holds(buffer, parts)


def test_rows_are_copied_at_once():
    buffer, x = RowBuffer(), rows(0, 5)
    kept = x.clone()
    buffer.add(x)
    x.zero_()  # as an activation in place would
    assert_holds(buffer, [kept])


def test_a_covariance_is_touched_once_per_many_rows():
    buffer, updates = RowBuffer(), []
    buffer._update = lambda x, _: updates.append(len(x))
    for seed in range(100):
        buffer.add(rows(seed, 32))
    assert updates == [1024] * 3


def test_training_goes_on_in_a_buffer_of_inference_mode():
    buffer = RowBuffer()
    with torch.inference_mode():
        buffer.add(rows(0, 5))
    buffer.add(rows(1, 5))
    with torch.inference_mode():
        buffer.moments()
    buffer.add(rows(2, 5))
    assert_holds(buffer, [rows(seed, 5) for seed in range(3)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_another_width_is_an_error_at_once_and_loses_nothing(dtype):
    buffer = RowBuffer()
    buffer.add(rows(0, 5))
    with pytest.raises(ValueError, match="Expected rows of 3 features as before, got 4"):
        buffer.add(rows(1, 5, features=4, dtype=dtype))
    buffer.add(rows(1, 5))
    assert_holds(buffer, [rows(0, 5), rows(1, 5)])


def test_after_a_reset_another_width_is_fine():
    buffer = RowBuffer()
    buffer.add(rows(0, 5))
    buffer.reset()
    assert buffer.moments() is None
    buffer.add(rows(1, 5, features=4))
    assert_holds(buffer, [rows(1, 5, features=4)])


@pytest.mark.parametrize("bad", [torch.ones(3), torch.ones(2, 0), torch.ones(2, 3, dtype=torch.complex64)])
def test_rows_that_a_covariance_would_refuse_are_refused_at_once(bad):
    with pytest.raises(ValueError, match=r"Expected real rows \(samples, features\), got torch\."):
        RowBuffer().add(bad)


def test_skipped_rows_are_counted():
    buffer, x = RowBuffer(), rows(0, 5)
    x[2, 1] = torch.nan
    buffer.add(x)
    assert buffer.skipped == 1
    buffer.reset()
    assert buffer.skipped == 0


@pytest.mark.parametrize("budget", [None, 50])
def test_positions_are_the_rows_that_they_flatten_to(budget):
    """Whether they come as a view of maps or not: the same rows are taken, in parts or whole."""
    maps, flat = (RowBuffer(Accumulation(max_samples=budget)) for _ in range(2))
    for seed in range(3):
        x = rows(seed, 60 * 7).view(60, 7, 3)
        maps.add(x.movedim(1, 2).contiguous().movedim(1, 2))
        flat.add(x.flatten(0, 1))
    assert (maps.taken, maps.stride) == (flat.taken, flat.stride)
    torch.testing.assert_close(maps.moments().scatter, flat.moments().scatter, rtol=1e-9, atol=0)
    assert maps.taken <= (budget or 3 * 60 * 7)


def test_a_batch_larger_than_what_is_taken_at_once_is_taken_in_parts():
    x = rows(0, 5000, 64)
    assert x.numel() > module._DIRECT_NUMBERS
    buffer = RowBuffer()
    buffer.add(x)
    assert_holds(buffer, [x])


@pytest.mark.parametrize("shape", [(11, 2), (11, 1, 2), (5, 3, 2), (2, 9, 2)])
def test_parts_hold_all_rows_in_order_and_no_more_than_is_taken_at_once(shape):
    x = torch.arange(torch.Size(shape).numel()).view(shape)
    maps = x.movedim(-1, 1).contiguous().movedim(1, -1)  # the same rows, kept feature after feature
    for rows_ in (x, maps):
        parts = module._parts(rows_, 4)
        assert max(map(len, parts)) <= 4
        assert torch.equal(torch.cat(parts), x.flatten(0, -2))
    assert len(module._parts(x[:4], 999)) == 1


def test_wide_rows_wait_in_no_more_memory_than_is_set_aside(monkeypatch):
    monkeypatch.setattr(module, "_MOST_BYTES", 2**12)
    buffer = RowBuffer()
    buffer.add(rows(0, 3, 64))
    assert buffer._rows.nbytes <= 2**12
    one = RowBuffer()
    one.add(rows(0, 3, 2000))
    assert len(one._rows) == 1  # a row is the least


@pytest.mark.parametrize("covariance", ["exact", "sketch"])
def test_a_reset_forgets_rows_and_what_was_skipped(covariance):
    buffer = RowBuffer(Accumulation(covariance))
    lost = rows(0, 300, features=100)
    lost[7] = torch.nan
    buffer.add(lost)
    assert (buffer.taken, buffer.skipped) == (299, 1)
    buffer.reset()
    kept = rows(1, 250, features=100)
    buffer.add(kept)
    assert (buffer.taken, buffer.skipped) == (250, 0)
    found = buffer.sketch() if covariance == "sketch" else buffer.moments()
    assert int(found.samples) == 250
    np.testing.assert_allclose(found.mean.numpy(), kept.double().numpy().mean(0), rtol=1e-12)


@pytest.mark.parametrize("positions", [None, 49])
def test_a_budget_takes_the_places_that_thinning_says(positions):
    """Of a known number of batches in the first window; of as many rows as the first had in the second."""
    buffer, batches = RowBuffer(Accumulation(max_samples=200)), 300
    x = torch.arange(batches * 4 * 49.0).view(-1, 1)
    parts = x.view(batches, 4, 49, 1) if positions else x.view(batches, 4 * 49, 1)
    for known in (batches, None):
        taken = []
        buffer._update = lambda rows, _, taken=taken: taken.append(rows.clone())
        for part in parts:
            buffer.add(part, batches=known)
        buffer._flush()
        expected = thinning(200, expected=len(x), batches=known, positions=positions)
        assert (expected.grouped > 0) is (known is not None and positions is not None)
        assert torch.equal(torch.cat(taken)[:, 0].long(), take(expected, len(x))[1])
        buffer.reset()


def test_rows_reach_the_covariance_in_their_order():
    buffer, updates = RowBuffer(), []
    buffer._update = lambda x, _: updates.append(x.clone())
    parts = [rows(seed, count) for seed, count in enumerate((10, 600, 20))]
    for part in parts:
        buffer.add(part)
    buffer._flush()
    assert torch.equal(torch.cat(updates), torch.cat(parts))


def test_a_sketch_holds_what_is_still_collected():
    buffer = RowBuffer(Accumulation("sketch"))
    buffer.add(rows(0, 5, features=100))
    assert int(buffer.sketch().samples) == 5


def test_few_rows_are_handed_over_until_they_are_summed_up():
    buffer = RowBuffer()
    few = rows(0, 5, features=100)
    buffer.add(few)
    assert torch.equal(buffer.few(), few)
    buffer.moments()  # sums them up
    buffer.add(few)
    assert buffer.few() is None
    buffer = RowBuffer(Accumulation("sketch"))
    buffer.add(few)
    assert buffer.few() is None


def test_nothing_waits_at_first():
    assert RowBuffer().features == RowBuffer().taken == RowBuffer().skipped == 0
    assert RowBuffer().few() is None
    assert RowBuffer().moments() is None
    assert RowBuffer(Accumulation("sketch")).sketch() is None
