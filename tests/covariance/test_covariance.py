"""Covariance as a torchmetrics metric: exact, mergeable, at home in collections, checkpoints and inference mode."""

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchmetrics import MetricCollection

from lightning_saturation import Covariance, Saturation

LAWS = settings(max_examples=25, deadline=None)


def rows(seed=0, samples=40, features=4, offset=1e4, dtype=torch.float32):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.standard_normal((samples, features)) * np.arange(1, features + 1) + offset).to(dtype)


def assert_is_numpys(covariance, x, tolerance=1e-10):
    reference = np.cov(x.double().numpy().T)
    assert covariance.dtype == torch.float64
    assert np.linalg.norm(covariance.detach().numpy() - reference) <= tolerance * np.linalg.norm(reference)


@LAWS
@given(
    seed=st.integers(0, 99),
    cuts=st.lists(st.integers(0, 40), max_size=6),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float64]),
    forward=st.booleans(),
)
def test_any_split_is_numpys_covariance_by_update_and_by_forward(seed, cuts, dtype, forward):
    x, metric = rows(seed, dtype=dtype), Covariance()
    for part in torch.tensor_split(x, sorted(cuts)):
        if forward and len(part) > 1:
            # A batch of its own, with its own mean: exact relative to that batch.
            assert_is_numpys(metric(part), part)
        else:
            metric.update(part)
    assert_is_numpys(metric.compute(), x)
    assert_is_numpys(metric.covariance(), x)
    np.testing.assert_allclose(metric.mean(), x.double().mean(0), rtol=1e-12)
    np.testing.assert_allclose(
        metric.eigenvalues(), np.linalg.eigvalsh(np.cov(x.double().numpy().T))[::-1], rtol=1e-9, atol=1e-9
    )
    assert int(metric.samples) == 40


@pytest.mark.parametrize("incoming", [lambda m: m, lambda m: m.metric_state], ids=["metric", "state"])
def test_metrics_merge(incoming):
    if not hasattr(Covariance, "merge_state"):
        pytest.skip("this torchmetrics has no merge_state")
    x, one, other = rows(), Covariance(), Covariance()
    one.update(x[:7])
    other.update(x[7:])
    other.update(torch.full((2, 4), torch.nan))
    one.merge_state(incoming(other))
    assert_is_numpys(one.covariance(), x)
    assert int(one.skipped) == 2
    fresh = Covariance()
    fresh.merge_state(incoming(one))
    fresh.merge_state(incoming(Covariance()))
    assert_is_numpys(fresh.covariance(), x)
    fresh.update(x)
    assert int(one.samples) == 40  # no state is shared
    wide = Covariance()
    wide.update(torch.full((2, 5), torch.nan))
    with pytest.raises(ValueError, match="Expected a state with 4 features to merge, got 5"):
        one.merge_state(incoming(wide))
    assert (int(one.samples), int(one.skipped)) == (40, 2)


def test_skipped_rows_are_counted_and_reset():
    metric = Covariance()
    x = rows()
    x[3, 1], x[5, 0] = torch.nan, torch.inf
    metric.update(x)
    assert (int(metric.skipped), int(metric.samples)) == (2, 38)
    metric(torch.full((1, 4), torch.nan))
    assert int(metric.skipped) == 3
    metric.reset()
    assert (int(metric.skipped), int(metric.samples)) == (0, 0)
    metric.update(rows(features=7))  # a new beginning may have another width
    assert metric.compute().shape == (7, 7)


STEPS = ("update", "forward", "compute", "reset")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(STEPS), st.booleans()), min_size=1, max_size=8))
def test_inference_mode_may_come_and_go(steps):
    metric, seen = Covariance(), []
    for number, (step, inference) in enumerate(steps):
        x = rows(number, samples=5)
        with torch.inference_mode(inference):
            if step == "update":
                metric.update(x)
            elif step == "forward":
                metric(x)
            elif step == "reset":
                metric.reset()
            elif seen:
                metric.compute()
        if step in ("update", "forward"):
            seen.append(x)
        elif step == "reset":
            seen.clear()
    metric.update(rows(99))
    assert_is_numpys(metric.compute(), torch.cat([*seen, rows(99)]))


def test_empty_batches_are_no_batches():
    metric = Covariance()
    metric.update(torch.zeros(0, 4))
    metric.update(rows())
    metric.update(torch.zeros(0, 9))
    assert_is_numpys(metric.compute(), rows())


@pytest.mark.parametrize("call", ["update", "forward"])
@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.ones(3), ValueError, r"Expected `x` of shape \(samples, features\), got \(3,\)"),
        (torch.ones(2, 3, 4), ValueError, r"Expected `x` of shape \(samples, features\), got \(2, 3, 4\)"),
        (torch.ones(5, 0), ValueError, r"Expected `x` of shape \(samples, features\), got \(5, 0\)"),
        (torch.ones(5, 3), ValueError, "Expected `x` with 4 features as before, got 3"),
        (torch.ones(5, 4, dtype=torch.complex64), TypeError, "to be a real tensor, got torch.complex64"),
        (torch.ones(5, 4, dtype=torch.bool), TypeError, "to be a real tensor, got torch.bool"),
        ([[1.0, 2.0]], TypeError, "Expected `x` to be a real tensor, got list"),
    ],
)
def test_bad_rows_are_errors_and_lose_nothing(call, x, error, message):
    metric = Covariance()
    metric.update(rows())
    with pytest.raises(error, match=message):
        getattr(metric, call)(x)
    metric.update(rows(1))
    assert_is_numpys(metric.compute(), torch.cat([rows(), rows(1)]))


def test_a_batch_whose_value_cannot_be_computed_loses_nothing():
    metric = Saturation()
    metric.update(rows())
    with pytest.raises(ValueError, match="Expected a finite `covariance`"):
        metric(torch.tensor([[1e200] * 4, [-1e200] * 4], dtype=torch.float64))  # its square is infinite
    metric.update(rows(1))
    assert_is_numpys(metric.covariance(), torch.cat([rows(), rows(1)]))


def test_casts_of_a_parent_do_not_reach_the_sums():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.covariance = nn.Linear(2, 2), Covariance()

    x = rows()
    for cast in (
        lambda m: m.half(),
        lambda m: m.bfloat16(),
        lambda m: m.float(),
        lambda m: m.to(torch.bfloat16),
        lambda m: m.to("cpu", torch.float16),
        lambda m: (m.covariance.set_dtype(torch.float16), m)[1],
    ):
        model = Model()
        model.covariance.update(x[:9])
        cast(model)
        model.covariance.update(x[9:])
        assert_is_numpys(model.covariance.compute(), x)
        assert model.covariance.samples.dtype == torch.int64
        model.covariance.reset()
        model.covariance.update(x)
        assert_is_numpys(model.covariance.compute(), x)


def test_moves_do_reach_the_sums():
    metric = Covariance()
    metric.update(rows())
    metric.to("meta")
    assert {getattr(metric, name).device.type for name in ("samples", "shift", "total", "products", "skipped")} == {
        "meta"
    }


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), lambda m: m.clone()])
def test_copies_go_on_by_themselves(copied):
    metric = Covariance()
    metric.update(rows())
    other = copied(metric)
    other.update(rows(1))
    assert_is_numpys(other.compute(), torch.cat([rows(), rows(1)]))
    assert_is_numpys(metric.compute(), rows())


def test_state_dicts_carry_what_was_seen_where_asked_to(tmp_path):
    metric = Saturation()
    metric.update(rows())
    assert not metric.state_dict()
    metric.persistent(True)
    torch.save(metric.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    before = copy.deepcopy(state)
    resumed = Saturation()
    resumed.load_state_dict(state)
    resumed.update(rows(1))
    assert_is_numpys(resumed.covariance(), torch.cat([rows(), rows(1)]))
    assert all(torch.equal(state[key], before[key]) for key in before)  # the checkpoint is no state


def test_collections_compute_one_group_and_keep_its_members_apart_when_copied():
    collection = MetricCollection({"low": Saturation(0.5), "high": Saturation(0.999), "covariance": Covariance()})
    x = rows(offset=0)
    for part in x.split(13):
        collection.update(part)
    assert list(map(len, collection.compute_groups.values())) == [3]
    values = collection.compute()
    assert_is_numpys(values["covariance"], x)
    assert values["low"] < values["high"]
    snapshot = collection["covariance"].clone()
    batch = collection(rows(1))  # forward, after the groups are known
    assert_is_numpys(batch["covariance"], rows(1))
    assert_is_numpys(collection.compute()["covariance"], torch.cat([x, rows(1)]))
    assert_is_numpys(snapshot.compute(), x)
    collection.reset()
    collection.update(rows(2))
    assert_is_numpys(collection.compute()["covariance"], rows(2))


def test_collections_do_not_group_metrics_of_other_rows():
    collection = MetricCollection({"a": Covariance(), "b": Covariance()})
    collection["a"].update(rows())
    collection.update(rows(1))
    assert len(collection.compute_groups) == 2


def test_a_gradient_is_not_kept():
    metric = Covariance()
    x = rows().requires_grad_()
    metric.update(x)
    assert not metric.compute().requires_grad
    assert not metric(x).requires_grad


def test_no_random_number_is_drawn():
    state = torch.get_rng_state()
    metric = Covariance()
    metric.update(rows())
    metric.compute()
    assert torch.equal(torch.get_rng_state(), state)
