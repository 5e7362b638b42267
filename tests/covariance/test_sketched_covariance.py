"""The sketched covariance as a metric."""

import pickle

import numpy as np
import pytest
import torch
from torch import nn

from lightning_saturation.covariance.sketched_covariance import SketchedCovariance
from lightning_saturation.covariance.spectrum import intrinsic_dimension


def rows(n=300, d=30, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.standard_normal((n, d)) @ (rng.standard_normal((d, d)) * 0.6 ** np.arange(d)).T + 7)


def exact(x, delta=0.99):
    return (
        intrinsic_dimension(torch.from_numpy(np.linalg.eigvalsh(np.cov(x.numpy().T)).copy()), delta=delta) / x.shape[1]
    )


@pytest.mark.parametrize("size", [1, 5, 12, None])
@pytest.mark.parametrize("parts", [1, 7, 300])
def test_the_bounds_contain_the_exact_saturation(size, parts):
    x = rows()
    metric = SketchedCovariance(size=size, delta=0.9)
    for part in x.split(parts):
        metric.update(part)
    lower, upper = metric.compute().tolist()
    assert 0 < lower <= exact(x, 0.9) <= upper <= 1
    assert float(metric.eigenvalues().sum()) == pytest.approx(float(x.var(0).sum()))
    if size is None:
        assert lower == upper


@pytest.mark.filterwarnings("ignore:.*called before the ``update``")  # merging does not count as one
def test_merged_metrics_know_the_rows_of_both():
    first, second, empty = SketchedCovariance(size=8), SketchedCovariance(size=8), SketchedCovariance(size=8)
    first.update(rows(seed=1))
    second.update(rows(seed=2) + 100)
    for metric in (second, empty):
        first.merge_state(metric)
    empty.merge_state(first)
    both = torch.cat([rows(seed=1), rows(seed=2) + 100])
    for metric in (first, empty):
        assert int(metric.samples) == 600
        torch.testing.assert_close(metric.sketch().mean, both.mean(0))
        lower, upper = metric.compute().tolist()
        assert lower <= exact(both) <= upper


def test_reset_pickle_and_casts_of_a_parent():
    metric = SketchedCovariance(size=8)
    parent = nn.ModuleList([metric])
    metric.update(rows())
    before = metric.compute()
    parent.bfloat16()
    assert metric.rows.dtype == torch.float64
    assert torch.equal(pickle.loads(pickle.dumps(metric)).compute(), before)
    metric.reset()
    metric.update(rows(d=5))
    assert metric.sketch().mean.shape == (5,)


def test_inference_mode_and_training_alternate():
    metric = SketchedCovariance(size=8)
    with torch.inference_mode():
        metric.update(rows(seed=1))
    metric.update(rows(seed=2))
    assert int(metric.samples) == 600


def test_nothing_seen_is_not_a_number():
    metric = SketchedCovariance(size=8)
    with pytest.warns(UserWarning, match="before the ``update``"):
        assert metric.compute().isnan().tolist() == [True, True]
    metric.update(torch.full((4, 3), torch.nan))
    assert metric.compute().isnan().all()


def test_rows_that_are_not_finite_are_counted():
    x = rows()
    x[4, 0], x[9, 1] = torch.nan, torch.inf
    metric = SketchedCovariance(size=8)
    metric.update(x)
    assert (int(metric.skipped), int(metric.samples)) == (2, 298)


def test_arguments_are_checked():
    with pytest.raises(ValueError, match=r"`size` of at least 1 row, got 0"):
        SketchedCovariance(size=0)
    with pytest.raises(ValueError, match="`delta`"):
        SketchedCovariance(delta=2.0)
    metric = SketchedCovariance()
    metric.update(rows(d=3))
    with pytest.raises(ValueError, match=r"with 3 features as before, got 4"):
        metric.update(rows(d=4))
    with pytest.raises(ValueError, match=r"shape \(samples, features\), got \(3,\)"):
        metric.update(torch.ones(3))
    other = SketchedCovariance()
    other.update(rows(d=4))
    with pytest.raises(ValueError, match=r"state with 3 features to merge, got 4"):
        metric.merge_state(other)
