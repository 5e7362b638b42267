"""Metrics over two and three processes: the numbers of one process, or one clear error on all of them."""

import itertools
import re
import warnings

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torchmetrics import MetricCollection

from lightning_saturation import Covariance, Saturation
from lightning_saturation.covariance.eigenvalues import eigenvalues_over_ranks
from lightning_saturation.covariance.moments import moments
from lightning_saturation.covariance.ranks import LOCAL
from lightning_saturation.covariance.reduction import agree, all_reduce_moments
from lightning_saturation.saturation.window import Window
from tests.distributed.ranks import error_on_each, on_ranks

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="this torch has no distributed package")

WORLDS = pytest.mark.parametrize("world", [2, 3])


def rows(rank, features=6, offset=1e4):
    """Uneven shards whose means lie far apart; the last of three ranks has more than the others together."""
    samples = (40, 7, 130)[rank]
    rng = np.random.default_rng(rank)
    mixed = rng.standard_normal((samples, features)) @ rng.standard_normal((features, features))
    return torch.from_numpy((mixed + offset * (rank + 1)).astype(np.float32))


def together(ranks):
    return np.concatenate([rows(rank).double().numpy() for rank in ranks])


def relative_error(ours, reference):
    return np.linalg.norm(ours.numpy() - reference) / np.linalg.norm(reference)


@WORLDS
def test_uneven_shards_give_numpys_covariance_to_twelve_digits(world):
    def job(rank):
        metric = Covariance()
        for part in rows(rank).split(9):
            metric.update(part)
        return metric.compute(), metric.mean(), metric.eigenvalues()

    stacked = together(range(world))
    results = on_ranks(world, job)
    for covariance, mean, eigenvalues in results:
        assert relative_error(covariance, np.cov(stacked.T)) < 1e-12
        assert relative_error(mean, stacked.mean(0)) < 1e-12
        assert torch.equal(eigenvalues, results[0][2])  # bitwise, or ranks would decide differently


@WORLDS
def test_ranks_without_rows_change_nothing(world):
    def job(rank):
        metric = Saturation(delta=0.9)
        if rank == world - 1:
            metric.update(rows(rank))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r".*called before the ``update``")
            return metric.compute(), metric.covariance(), metric.samples

    reference = np.cov(rows(world - 1).double().numpy().T)
    for rank, (saturation, covariance, samples) in enumerate(on_ranks(world, job)):
        assert relative_error(covariance, reference) < 1e-12
        assert saturation > 0
        assert int(samples) == (len(rows(rank)) if rank == world - 1 else 0)  # unsynced again


def test_no_rank_has_rows():
    def job(rank):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r".*called before the ``update``")
            return Saturation().compute(), Covariance().compute()

    for saturation, covariance in on_ranks(2, job):
        assert saturation.isnan()
        assert covariance.shape == (0, 0)


def test_a_rank_without_new_rows_still_meets_the_others():
    def job(rank):
        metric = Covariance()
        metric.update(rows(rank))
        metric.compute()
        if rank == 0:
            metric.update(rows(2))
        return metric.compute()

    for covariance in on_ranks(2, job):
        assert relative_error(covariance, np.cov(together([0, 1, 2]).T)) < 1e-12


def test_accumulating_goes_on_after_compute_also_when_that_was_in_inference_mode():
    def job(rank):
        metric = Covariance()
        metric.update(rows(rank)[:4])
        with torch.inference_mode():
            metric.compute()
        metric.update(rows(rank)[4:])
        return metric.compute()

    for covariance in on_ranks(2, job):
        assert relative_error(covariance, np.cov(together([0, 1]).T)) < 1e-12


def test_forward_gives_the_batch_here_or_everywhere_and_accumulates():
    def job(rank):
        here, everywhere = Covariance(), Covariance(dist_sync_on_step=True)
        return here(rows(rank)), everywhere(rows(rank)), here.compute(), everywhere.compute()

    stacked = np.cov(together([0, 1]).T)
    for rank, (here, step, one, other) in enumerate(on_ranks(2, job)):
        assert relative_error(here, np.cov(rows(rank).double().numpy().T)) < 1e-10
        for covariance in (step, one, other):
            assert relative_error(covariance, stacked) < 1e-12


def test_skipped_rows_are_counted_over_all_ranks_while_synced():
    def job(rank):
        metric = Covariance()
        x = rows(rank).clone()
        x[: rank + 1, 0] = torch.nan
        metric.update(x)
        with metric.sync_context(distributed_available=dist.is_initialized):
            synced = int(metric.skipped), int(metric.samples)
        return synced, int(metric.skipped)

    total = sum(len(rows(rank)) for rank in range(3)) - 6
    assert on_ranks(3, job) == [((6, total), 1), ((6, total), 2), ((6, total), 3)]


def test_a_process_group_reduces_over_its_ranks_only():
    def job(rank):
        pair, alone = dist.new_group([0, 2]), dist.new_group([1])
        metric = Covariance(process_group=alone if rank == 1 else pair)
        metric.update(rows(rank))
        return metric.compute(), next(iter(all_reduce_moments({"a": moments(rows(rank))}, group=LOCAL).values()))

    results = on_ranks(3, job)
    for rank, ranks in ((0, [0, 2]), (1, [1]), (2, [0, 2])):
        assert relative_error(results[rank][0], np.cov(together(ranks).T)) < 1e-10
        assert int(results[rank][1].samples) == len(rows(rank))


def test_collections_share_one_reduction_per_group():
    def job(rank):
        collection = MetricCollection({"high": Saturation(0.99), "low": Saturation(0.5), "covariance": Covariance()})
        for part in rows(rank, offset=0).split(20):
            collection.update(part)
        return collection.compute(), len(collection.compute_groups)

    alone = Covariance()
    alone.update(torch.cat([rows(0, offset=0), rows(1, offset=0)]))
    for values, groups in on_ranks(2, job):
        assert groups == 1
        assert relative_error(values["covariance"], alone.compute().numpy()) < 1e-12
        assert values["low"] < values["high"]


@WORLDS
def test_a_metric_of_another_width_is_one_error_everywhere(world):
    def job(rank):
        metric = Saturation()
        metric.update(torch.randn(5, 4 if rank == 0 else 3))
        metric.compute()

    messages = error_on_each(world, job)
    assert len(set(messages)) == 1
    assert re.search(
        r"RuntimeError: Expected .*Saturation.* same width on every rank, got 4 .* 3 on rank 1", messages[0]
    )


def test_a_window_reduces_all_layers_in_one_handshake_and_two_all_reduces():
    def job(rank):
        reduced, gathered = [], []
        all_reduce, gather = dist.all_reduce, dist.all_gather_object
        dist.all_reduce = lambda tensor, **options: (reduced.append(tensor.dtype), all_reduce(tensor, **options))[1]
        dist.all_gather_object = lambda *args, **options: (gathered.append(1), gather(*args, **options))[1]
        try:
            all_reduce_moments(
                {name: moments(rows(rank, features)) for name, features in (("a", 3), ("b", 9), ("c", 1))}
            )
        finally:
            dist.all_reduce, dist.all_gather_object = all_reduce, gather
        return reduced, len(gathered)

    assert on_ranks(2, job) == [([torch.float64] * 2, 1)] * 2


@WORLDS
def test_windows_agree_bitwise_and_with_one_process(world):
    def job(rank):
        window = Window(["a", "b", "c", "never"])
        for part in rows(rank).split(11):
            window.add("a", part)
            if rank != 0:  # rank 0 skips this layer, between the others, in the whole window
                window.add("b", part[:, :3])
            window.add("c", part @ torch.ones(6, 9))
        return window.statistics(delta=0.9)

    alone = Window(["a", "b", "c", "never"])
    for rank in range(world):
        alone.add("a", rows(rank))
        if rank:
            alone.add("b", rows(rank)[:, :3])
        alone.add("c", rows(rank) @ torch.ones(6, 9))
    expected = alone.statistics(delta=0.9)
    results = on_ranks(world, job)
    for result in results:
        assert list(result) == ["a", "b", "c"]  # in the order in which they run, also where rank 0 saw none
        assert result == results[0]
        for name, statistics in result.items():
            assert statistics.samples == expected[name].samples
            assert statistics.intrinsic_dimension == expected[name].intrinsic_dimension
            assert torch.equal(statistics.eigenvalues, results[0][name].eigenvalues)
            np.testing.assert_allclose(
                statistics.eigenvalues, expected[name].eigenvalues, rtol=0, atol=1e-12 * expected[name].total_variance
            )


def test_windows_that_nobody_filled_are_empty_everywhere():
    assert on_ranks(2, lambda rank: Window(["a"]).statistics(delta=0.9)) == [{}, {}]


def test_skipped_rows_of_a_layer_that_one_rank_never_ran():
    def job(rank):
        window = Window(["a", "b"])
        window.add("a", rows(rank))
        if rank:
            window.add("b", torch.full((3, 2), torch.nan))
        return {name: (s.samples, s.skipped) for name, s in window.statistics(delta=0.9).items()}

    assert on_ranks(2, job) == [{"a": (47, 0), "b": (0, 3)}] * 2


def test_eigenproblems_are_shared_among_the_ranks():
    def job(rank):
        solved = []
        import lightning_saturation.covariance.eigenvalues as spectra

        solve = spectra._solve
        spectra._solve = lambda name, *rest: (solved.append(name), solve(name, *rest))[1]
        whole = {name: moments(rows(0, features)) for name, features in (("a", 3), ("b", 9), ("c", 8), ("d", 2))}
        return solved, eigenvalues_over_ranks(whole)

    (first, values), (second, others) = on_ranks(2, job)
    assert not set(first) & set(second)
    assert set(first) | set(second) == {"a", "b", "c", "d"}
    assert ("b" in first) != ("c" in first)  # the two dear ones do not meet on one rank
    for name, features in (("a", 3), ("b", 9), ("c", 8), ("d", 2)):
        assert torch.equal(values[name], others[name])
        reference = np.linalg.eigvalsh(np.cov(rows(0, features).double().numpy().T))[::-1]
        np.testing.assert_allclose(values[name], reference.clip(0), rtol=1e-9, atol=1e-9)


def test_an_eigenproblem_that_fails_on_one_rank_is_missing_on_all():
    def job(rank):
        good, bad = moments(rows(0, 3)), moments(rows(0, 4))
        bad.scatter[0, 0] = torch.inf
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            values = eigenvalues_over_ranks({"good": good, "bad": bad})
        return values["good"] is not None, values["bad"] is None, [str(w.message) for w in caught]

    results = on_ranks(2, job)
    assert [result[:2] for result in results] == [(True, True)] * 2
    (message,) = itertools.chain.from_iterable(result[2] for result in results)
    assert message.startswith("The saturation of layer 'bad' is missing in this window")


@WORLDS
def test_other_layers_on_another_rank_are_one_error_everywhere(world):
    def job(rank):
        tracked = ["a", "b"] if rank == 0 else ["a", "c"]
        all_reduce_moments({name: moments(rows(rank)) for name in tracked})

    messages = error_on_each(world, job)
    assert len(set(messages)) == 1
    assert re.search(r"rank 1 differs from rank 0: missing \['b'\], additional \['c'\]", messages[0])


def test_another_width_on_another_rank_is_one_error_everywhere():
    messages = error_on_each(2, lambda rank: agree({"a": 4, "b": 3 + rank}))
    assert len(set(messages)) == 1
    assert re.search(r"layer 'b' to have the same width on every rank, got 3 features .* 4 on rank 1", messages[0])


def test_the_same_layers_in_another_order_are_no_disagreement():
    def job(rank):
        names = ["a", "b"] if rank == 0 else ["b", "a"]
        return {
            name: int(m.samples)
            for name, m in all_reduce_moments({n: moments(rows(rank, 2 if n == "a" else 5)) for n in names}).items()
        }

    assert on_ranks(2, job) == [{"a": 47, "b": 47}] * 2


def test_agreed_widths_keep_the_order_in_which_layers_run_whoever_skipped_some():
    seen = [
        {"a": 1, "d": 4, "b": None, "c": None},
        {"b": 2, "c": 3, "a": None, "d": None},
        {"a": 1, "b": 2, "c": 3, "d": 4},
    ]
    agreed = on_ranks(3, lambda rank: list(agree(seen[rank]).items()))
    assert agreed == [[("a", 1), ("b", 2), ("c", 3), ("d", 4)]] * 3
