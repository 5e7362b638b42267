"""Similarity metrics: any split gives what the functions give on all rows; one state per collection; bad input."""

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics import MetricCollection

from lightning_saturation import DFTCCA, PWCCA, SVCCA, ClassSimilarity, LinearCKA, Procrustes
from lightning_saturation.functional import (
    class_similarity,
    dft_cca,
    linear_cka,
    procrustes,
    pwcca,
    svcca,
)

# torchmetrics' own word on a metric without updates, which a merge does not count as.
pytestmark = pytest.mark.filterwarnings("ignore:The ``compute`` method of metric:UserWarning")

PAIRS = {
    "svcca": (SVCCA, {"delta": 0.9}, lambda x, y: svcca(x, y, delta=0.9)),
    "pwcca": (PWCCA, {}, lambda x, y: pwcca(x, y).mean),
    "cka": (LinearCKA, {}, linear_cka),
    "debiased": (LinearCKA, {"debiased": True}, lambda x, y: linear_cka(x, y, debiased=True)),
    "procrustes": (Procrustes, {}, procrustes),
    "normalized": (Procrustes, {"normalize": True}, lambda x, y: procrustes(x, y, normalize=True)),
    "classes": (ClassSimilarity, {}, class_similarity),
}


def rows(seed=0, samples=60, offset=0.0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((samples, 5)) + offset
    y = np.c_[x[:, :2], rng.standard_normal((samples, 2))] @ rng.standard_normal((4, 4))
    return torch.from_numpy(x), torch.from_numpy(y)


def maps(seed=0, samples=40):
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.standard_normal((samples, 3, 4, 5)))
    return x, x[:, :2] * 2 + torch.from_numpy(rng.standard_normal((samples, 2, 4, 5)))


@pytest.mark.parametrize("kind", PAIRS)
@settings(max_examples=8, deadline=None)
@given(cuts=st.lists(st.integers(0, 60), max_size=3), offset=st.sampled_from([0.0, 1e4]))
def test_any_split_over_batches_is_the_function_of_all_rows(kind, cuts, offset):
    build, options, function = PAIRS[kind]
    x, y = rows(offset=offset)
    metric = build(**options)
    for part in np.split(np.arange(60), sorted(cuts)):
        metric.update(x[part], y[part])
    torch.testing.assert_close(metric.compute(), function(x, y), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", PAIRS)
def test_states_merge_whatever_their_origins(kind):
    build, options, function = PAIRS[kind]
    x, y = rows(offset=30.0)
    first, second, empty = (build(**options) for _ in range(3))
    first.update(x[:7], y[:7])
    second.update(x[7:], y[7:])
    first.merge_state(second)
    first.merge_state(empty)
    empty.merge_state(first)
    torch.testing.assert_close(first.compute(), function(x, y), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(empty.compute(), function(x, y), rtol=1e-8, atol=1e-8)


def test_forward_gives_the_batch_and_keeps_the_total():
    x, y = rows()
    metric = SVCCA()
    torch.testing.assert_close(metric(x[:30], y[:30]), svcca(x[:30], y[:30]))
    torch.testing.assert_close(metric(x[30:], y[30:]), svcca(x[30:], y[30:]))
    torch.testing.assert_close(metric.compute(), svcca(x, y))
    metric.reset()
    assert metric.compute().isnan()


def test_a_collection_accumulates_one_state():
    collection = MetricCollection({name: build(**options) for name, (build, options, _) in PAIRS.items()})
    x, y = rows()
    collection.update(x[:20], y[:20])
    collection.update(x[20:], y[20:])
    assert [sorted(names) for names in collection.compute_groups.values()] == [sorted(PAIRS)]
    found = collection.compute()
    for name, (_, _, function) in PAIRS.items():
        torch.testing.assert_close(found[name], function(x, y), rtol=1e-8, atol=1e-8)
    collection.reset()
    collection.update(x, y)
    torch.testing.assert_close(collection.compute()["cka"], linear_cka(x, y))


@pytest.mark.parametrize("cut", [0, 1, 13, 40])
@pytest.mark.parametrize("delta", [None, 0.9])
def test_dft_splits_and_merges(cut, delta):
    x, y = maps()
    whole = dft_cca(x, y, delta=delta).mean
    batches, other = DFTCCA(delta=delta), DFTCCA(delta=delta)
    batches.update(x[:cut], y[:cut])
    other.update(x[cut:], y[cut:])
    batches.merge_state(other)
    torch.testing.assert_close(batches.compute(), whole, rtol=0, atol=1e-9)
    other.update(x[:cut], y[:cut])
    torch.testing.assert_close(other.compute(), whole, rtol=0, atol=1e-9)
    torch.testing.assert_close(other.frequencies().correlations, dft_cca(x, y, delta=delta).correlations)


def test_dft_resizes_on_request_only():
    x, y = maps()
    with pytest.raises(ValueError, match="`resize=True`"):
        DFTCCA().update(x, y[..., :3])
    metric = DFTCCA(resize=True)
    metric.update(x, y[..., :3])
    torch.testing.assert_close(metric.compute(), dft_cca(x, y[..., :3], resize=True).mean)


@pytest.mark.parametrize("build", [SVCCA, DFTCCA])
def test_bad_samples_are_left_out_and_counted(build):
    x, y = maps() if build is DFTCCA else rows()
    clean = build()
    clean.update(x[2:], y[2:])
    x, y = x.clone(), y.clone()
    x[0, 0], y[1, 1] = torch.nan, -torch.inf
    metric = build()
    metric.update(x, y)
    assert int(metric.skipped) == 2
    torch.testing.assert_close(metric.compute(), clean.compute())
    late = build()
    late.update(x[:2], y[:2])
    late.update(x[2:], y[2:])
    torch.testing.assert_close(late.compute(), clean.compute())


@pytest.mark.parametrize("build", [PWCCA, DFTCCA])
def test_survives_inference_mode_copies_pickles_and_casts(build):
    x, y = maps() if build is DFTCCA else rows()
    metric = build()
    with torch.inference_mode():
        metric.update(x[:30].clone(), y[:30].clone())
    metric = pickle.loads(pickle.dumps(copy.deepcopy(metric)))
    torch.nn.ModuleList([metric]).to(torch.bfloat16)
    metric.update(x[30:], y[30:])
    expected = build()
    expected.update(x, y)
    torch.testing.assert_close(metric.compute(), expected.compute(), rtol=0, atol=1e-9)


def test_missing_before_the_first_row():
    assert all(build(**options).compute().isnan().all() for build, options, _ in PAIRS.values())
    assert DFTCCA().compute().isnan()
    with pytest.raises(ValueError, match="at least one sample first"):
        SVCCA().pair()


def test_bad_input():
    x, y = rows()
    metric = ClassSimilarity()
    metric.update(x, y)
    with pytest.raises(ValueError, match="`y` with 4 features as before, got 3"):
        metric.update(x, y[:, :3])
    with pytest.raises(ValueError, match="`x` with 5 features as before, got 4"):
        metric.update(x[:, :4], y)
    with pytest.raises(ValueError, match="rows of the same samples, got 60 and 59"):
        metric.update(x, y[1:])
    with pytest.raises(ValueError, match=r"`x` of shape \(samples, features\), got \(60,\)"):
        metric.update(x[:, 0], y)
    other = ClassSimilarity()
    other.update(x, y[:, :3])
    with pytest.raises(ValueError, match="5 and 4 features to merge, got 5 and 3"):
        metric.merge_state(other)
    for build in (SVCCA, PWCCA, DFTCCA, ClassSimilarity):
        with pytest.raises(ValueError, match="`delta`"):
            build(delta=0.0)
    left, right = maps()
    fitted = DFTCCA()
    fitted.update(left, right)
    with pytest.raises(ValueError, match="3 and 2 channels of 4×5 as before, got 2 and 3 channels of 4×5"):
        fitted.update(right, left)
