"""A window over all layers: their order, their numbers, and trouble that ends nothing."""

import numpy as np
import pytest
import torch

from lightning_saturation.saturation.window import Window, saturation_tracker


def rows(seed, samples=20, features=3):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((samples, features)))


def window_of(*batches):
    window = Window(["a", "b", "c", "d"])
    for batch in batches:
        window.begin_batch()
        for name in batch:
            window.add(name, rows(ord(name)))
    return window


@pytest.mark.parametrize(
    ("batches", "order"),
    [
        (["cab"], "cab"),  # not the order of definition
        (["ac", "abc"], "abc"),  # a layer that the first batch skipped
        (["bc", "abc"], "abc"),
        (["ad", "abd", "abcd"], "abcd"),
        (["aab", "aacb"], "acb"),  # a layer used twice
        (["ab", "ba"], "ab"),  # a contradiction: the first batch decides
    ],
)
def test_layers_come_in_the_order_in_which_they_run(batches, order):
    assert "".join(window_of(*batches).statistics(delta=0.9)) == order


def test_numbers_are_those_of_all_rows():
    window = Window(["a"])
    for seed in range(3):
        window.add("a", rows(seed))
    (statistics,) = window.statistics(delta=0.9).values()
    reference = np.linalg.eigvalsh(np.cov(np.concatenate([rows(seed) for seed in range(3)]).T))[::-1]
    np.testing.assert_allclose(statistics.eigenvalues, reference, rtol=1e-10)
    assert (statistics.samples, statistics.features, statistics.skipped) == (60, 3, 0)


def test_a_reset_window_is_empty_and_keeps_its_order():
    window = window_of("ab")
    window.reset()
    assert window.is_empty
    assert window.statistics(delta=0.9) == {}
    window.add("b", rows(0))
    window.add("a", rows(1))
    assert list(window.statistics(delta=0.9)) == ["a", "b"]
    assert window.statistics(delta=0.9)["b"].samples == 20


def test_an_empty_batch_is_nothing_seen():
    window = Window(["a"])
    window.add("a", torch.zeros(0, 3))
    assert window.is_empty
    assert window.statistics(delta=0.9) == {}


def test_trouble_is_one_warning_and_no_end():
    window = window_of("a")
    message = "Some outputs of layer 'a' are left out .* 3 features as before, got 5"
    with pytest.warns(UserWarning, match=message) as told:  # noqa: PT031
        for _ in range(3):
            window.add("a", rows(0, features=5))
            window.add("a", rows(0, features=5).float())
    assert len(told) == 1
    assert window.statistics(delta=0.9)["a"].samples == 20


def test_rows_with_nan_are_left_out_and_counted():
    window = Window(["a", "b"])
    x = rows(0)
    x[4] = torch.nan
    window.add("a", x)
    window.add("b", torch.full((4, 2), torch.inf))
    statistics = window.statistics(delta=0.9)
    assert (statistics["a"].samples, statistics["a"].skipped) == (19, 1)
    assert (statistics["b"].samples, statistics["b"].skipped) == (0, 4)
    assert np.isnan(statistics["b"].saturation)
    assert statistics["a"].saturation > 0


def test_only_what_runs_between_record_and_record_counts():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    tracker = saturation_tracker(model, stages=("train", "val"))
    tracker.attach()
    x = torch.randn(5, 3)
    model(x)
    tracker.record("train")
    model(x)
    tracker.record("val")
    model(x)
    model(x)
    tracker.record(None)
    model(x)
    tracker.detach()
    model(x)
    samples = {stage: tracker.windows[stage].statistics(delta=0.9)["1"].samples for stage in ("train", "val")}
    assert samples == {"train": 5, "val": 10}


def test_layers_that_never_ran_are_named_once():
    model = torch.nn.ModuleDict({"ran": torch.nn.Linear(3, 4), "idle": torch.nn.Linear(4, 2)})
    tracker = saturation_tracker(model, stages=("train",))
    with pytest.warns(UserWarning, match=r"No saturation for \['idle'\]: these layers were never run") as told:  # noqa: PT031
        tracker.warn_about_missing(["ran"])
        tracker.warn_about_missing(["ran"])
    assert len(told) == 1
