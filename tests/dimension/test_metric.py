"""The TwoNN metric equals the function on all rows, however they are split."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_saturation.dimension.copies import without_copies
from lightning_saturation.dimension.metric import TwoNN
from lightning_saturation.dimension.two_nn_law import estimate_from_nearest
from lightning_saturation.functional import two_nn_estimate


def rows(samples: int, seed: int = 0, features: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(samples, 3, generator=generator) @ torch.randn(3, features, generator=generator) + 50


def split(x: Tensor, sizes: list[int]) -> list[Tensor]:
    cuts = sorted(size % (len(x) + 1) for size in sizes)
    return [x[a:b] for a, b in zip([0, *cuts], [*cuts, len(x)], strict=True)]


def brute_force(anchors: Tensor, x: Tensor) -> float:
    """TwoNN at ``anchors``, some rows of ``x``, with neighbours among all of ``x``."""
    distances = torch.cdist(anchors.double(), x.double(), compute_mode="donot_use_mm_for_euclid_dist")
    return estimate_from_nearest(distances.sort(dim=1).values[:, 1:3]).dimension


@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.integers(0, 400), max_size=6), anchors=st.sampled_from([20, 150, 1000]))
def test_any_split_gives_the_same_answer(sizes: list[int], anchors: int) -> None:
    x = rows(300)
    metric = TwoNN(anchors)
    for part in split(x, sizes):
        metric.update(part)
    assert int(metric.samples) == 300
    assert float(metric.compute()) == pytest.approx(brute_force(x[:anchors], x), rel=1e-9)


def test_with_room_for_all_it_is_the_function() -> None:
    x = torch.cat([rows(200), rows(200)[:3], torch.full((2, 8), torch.nan)])
    metric = TwoNN()
    for part in x.split(37):
        metric.update(part)
    assert metric.estimate() == pytest.approx(two_nn_estimate(x), rel=1e-9)
    assert (metric.estimate().duplicates, metric.estimate().skipped) == (3, 2)


def copied(x: Tensor, seed: int) -> Tensor:
    """Return the rows of ``x``, most of them several times, in another order but for the first."""
    generator = torch.Generator().manual_seed(seed)
    return torch.cat([x, x[torch.randint(len(x), (2 * len(x),), generator=generator)]])


@settings(max_examples=20, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 900), max_size=5), anchors=st.sampled_from([20, 150, 1000]), seed=st.integers(0, 9)
)
def test_copies_change_nothing_however_they_come(sizes: list[int], anchors: int, seed: int) -> None:
    x = rows(300)
    metric = TwoNN(anchors)
    for part in split(copied(x, seed), sizes):
        metric.update(part)
    assert torch.equal(metric.anchors, x[:anchors])
    assert float(metric.compute()) == pytest.approx(brute_force(x[:anchors], x), rel=1e-9)
    assert int(metric.samples) == 900
    if anchors == 1000:
        assert int(metric.duplicates) == 600


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), full=st.integers(0, 2), shared=st.booleans())
def test_rows_that_several_metrics_saw_are_neighbours_once(seed: int, full: int, shared: bool) -> None:
    x = rows(200)
    parts = copied(x, seed).split(250)
    metrics = [
        TwoNN(torch.cat([x[:30], x[:3]])) if shared else TwoNN(20 if index == full else 1000) for index in range(3)
    ]
    for metric, part in zip(metrics, parts, strict=True):
        metric.update(part)
    merged = metrics[0]
    for metric in metrics[1:]:
        merged.merge_state(metric)
    anchors = x[:30] if shared else without_copies(parts[full])[:20]
    assert float(merged.compute()) == pytest.approx(brute_force(anchors, x), rel=1e-9)
    assert int(merged.samples) == 600 + 30 * shared


def test_memory_is_bounded_by_the_anchors() -> None:
    metric = TwoNN(10)
    for seed in range(20):
        metric.update(rows(50, seed))
    assert metric.anchors.shape == (10, 8)
    assert metric.nearest.shape == (10, 2)
    assert int(metric.samples) == 1000


@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.integers(0, 400), min_size=1, max_size=4), full=st.integers(0, 4))
def test_metrics_merge_exactly_if_at_most_one_is_full(sizes: list[int], full: int) -> None:
    parts = split(rows(300), sizes)
    full %= len(parts)
    metrics = [TwoNN(20 if index == full else 1000) for index in range(len(parts))]
    for metric, part in zip(metrics, parts, strict=True):
        metric.update(part)
    merged = metrics[0]
    for metric in metrics[1:]:
        merged.merge_state(metric)
    anchors = parts[full][:20] if len(parts[full]) > 20 else torch.cat(parts)
    expected = brute_force(anchors, torch.cat(parts))
    assert float(merged.compute()) == pytest.approx(expected, rel=1e-9)
    assert int(merged.samples) == 300


def test_shared_anchors_merge_without_limit() -> None:
    x = rows(400)
    metrics = [TwoNN(x[:30]) for _ in range(3)]
    for metric, part in zip(metrics, x[30:].split(150), strict=True):
        metric.update(part)
    for metric in metrics[1:]:
        metrics[0].merge_state(metric)
    assert float(metrics[0].compute()) == pytest.approx(brute_force(x[:30], x), rel=1e-9)
    assert int(metrics[0].samples) == 400
    metrics[0].reset()
    assert int(metrics[0].samples) == 30
    assert float(metrics[0].estimate().dimension) == pytest.approx(two_nn_estimate(x[:30]).dimension)


def test_two_full_metrics_do_not_merge() -> None:
    metrics = [TwoNN(10), TwoNN(10)]
    for seed, metric in enumerate(metrics):
        metric.update(rows(20, seed))
    with pytest.raises(RuntimeError, match=r"at most one .* got 2 \(\[\(20, 10\), \(20, 10\)\]"):
        metrics[0].merge_state(metrics[1])
    with pytest.raises(RuntimeError, match="same rows as `anchors`"):
        TwoNN(rows(20)).merge_state(TwoNN(rows(20, 1)))
    other = TwoNN()
    other.update(rows(20, features=9))
    with pytest.raises(RuntimeError, match=r"\[8, 9\] features"):
        metrics[0].merge_state(other)
    with pytest.raises(ValueError, match="`incoming_state`"):
        metrics[0].merge_state(3)


def test_what_tells_no_dimension_is_nan_with_a_warning() -> None:
    metric = TwoNN()
    metric.update(rows(3))
    with pytest.warns(UserWarning, match="No TwoNN dimension. Expected at least 5 different points"):
        assert metric.compute().isnan()
    with pytest.raises(ValueError, match="at least 5"):
        metric.estimate()
    metric.update(torch.ones(20, 8))
    with pytest.warns(UserWarning, match="19 duplicates"):
        assert metric.compute().isnan()


def test_what_is_no_tensor_is_an_error() -> None:
    with pytest.raises(TypeError, match="Expected `x` to be a tensor, got list"):
        TwoNN().update([[1.0, 2.0]])


def test_forward_gives_the_batch_and_keeps_the_whole() -> None:
    x = rows(200)
    metric = TwoNN()
    first, second = metric(x[:90]), metric(x[90:])
    assert float(first) == pytest.approx(two_nn_estimate(x[:90]).dimension)
    assert float(second) == pytest.approx(two_nn_estimate(x[90:]).dimension)
    assert float(metric.compute()) == pytest.approx(two_nn_estimate(x).dimension)


def test_casts_copies_and_inference_mode_keep_the_state() -> None:
    x = rows(200)
    metric = TwoNN(50)
    with torch.inference_mode():
        metric.update(x[:80])
    parent = torch.nn.ModuleList([metric]).to(torch.bfloat16).half()
    assert parent[0].nearest.dtype == torch.float64
    metric = pickle.loads(pickle.dumps(copy.deepcopy(metric)))
    metric.update(x[80:])
    assert float(metric.compute()) == pytest.approx(brute_force(x[:50], x), rel=1e-9)
    fresh = TwoNN(50)
    metric.persistent(True)
    fresh.persistent(True)
    fresh.load_state_dict(metric.state_dict())
    assert float(fresh.estimate().dimension) == float(metric.compute())


def test_the_rows_are_not_held() -> None:
    x = rows(100)
    metric = TwoNN()
    metric.update(x)
    before = float(metric.compute())
    x.zero_()
    assert float(metric.compute()) == before


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TwoNN(4), "at least 5 `anchors`, got 4"),
        (lambda: TwoNN(torch.zeros(5)), r"`anchors` of shape \(anchors, features\)"),
        (lambda: TwoNN(torch.full((9, 2), torch.nan)), "finite"),
        (lambda: TwoNN(discard=1.0), "`discard`"),
        (lambda: TwoNN(estimator="ml"), "`estimator`"),
        (lambda: TwoNN().update(torch.zeros(3)), r"`x` of shape \(samples, features\)"),
        (lambda: TwoNN().update(torch.zeros(3, 2, dtype=torch.int64)), "floating"),
        (lambda: TwoNN(rows(9)).update(torch.zeros(3, 2)), "8 features as before, got 2"),
    ],
)
def test_bad_input_is_named(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
