"""A bounded sample: uniform, the same for any split and any layer."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_saturation.dimension.row_window import RowSample


def rows(count: int) -> torch.Tensor:
    return torch.arange(float(count))[:, None].expand(count, 3)


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(0, 40), min_size=1, max_size=8), size=st.integers(1, 60), seed=st.integers(0, 5))
def test_any_split_keeps_the_same_rows(sizes: list[int], size: int, seed: int) -> None:
    whole, parts = RowSample(size, seed=seed), RowSample(size, seed=seed)
    x = rows(sum(sizes))
    whole.add(x, torch.arange(len(x)))
    for part in x.split(sizes):
        parts.add(part, part[:, 0].long())
    if len(x):
        assert torch.equal(whole.sampled().rows, parts.sampled().rows)
        assert torch.equal(parts.sampled().labels, parts.sampled().rows[:, 0].long())
        assert len(parts.sampled().rows.unique(dim=0)) == min(size, len(x))


def test_every_row_is_as_likely() -> None:
    counts = torch.zeros(60)
    for seed in range(600):
        sample = RowSample(20, seed=seed)
        for part in rows(60).split(7):
            sample.add(part)
        counts[sample.sampled().rows[:, 0].long()] += 1
    # 600 draws at 1/3: mean 200, standard deviation 11.5
    assert counts.min() > 150
    assert counts.max() < 250


def test_layers_keep_the_same_samples_and_reset_starts_again() -> None:
    first, second = RowSample(5, seed=3), RowSample(5, seed=3)
    for part in rows(50).split(9):
        first.add(part)
        second.add(torch.cat([part, part], dim=1))
    assert torch.equal(first.sampled().rows[:, 0], second.sampled().rows[:, 3])
    before = first.sampled().rows.clone()
    first.reset()
    assert first.filled == 0
    with torch.inference_mode():
        first.add(rows(50))
    first.add(rows(0))
    assert torch.equal(first.sampled().rows, before)
    with pytest.raises(ValueError, match="3 features as before, got 4"):
        first.add(torch.zeros(2, 4))
