"""The reduction on one process, where it must cost and change nothing; ranks are in the distributed tests."""

import pytest
import torch

from lightning_saturation.covariance.moments import moments
from lightning_saturation.covariance.ranks import LOCAL, is_distributed
from lightning_saturation.covariance.reduction import agree, all_reduce_moments


@pytest.mark.parametrize("group", [None, LOCAL])
def test_one_process_keeps_its_moments_and_their_order(group):
    b, a = moments(torch.randn(5, 3)), moments(torch.randn(4, 2))
    reduced = all_reduce_moments({"b": b, "never": None, "a": a}, group=group)
    assert list(reduced) == ["b", "a"]
    assert reduced["b"] is b


def test_one_process_is_not_distributed():
    assert not is_distributed()
    assert not is_distributed(LOCAL)


def test_nothing_reduces_to_nothing():
    assert all_reduce_moments({}) == {}
    assert all_reduce_moments({"never": None}) == {}


def test_the_order_is_that_in_which_layers_ran():
    assert agree({"c": 1, "a": 2, "never": None, "b": 3}) == {"c": 1, "a": 2, "b": 3}
    assert list(agree({"c": 1, "a": 2, "never": None, "b": 3})) == ["c", "a", "b"]
