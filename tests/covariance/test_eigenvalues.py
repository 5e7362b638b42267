"""Eigenproblems of all layers on one process; ranks are in the distributed tests."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_saturation.covariance import eigenvalues as module
from lightning_saturation.covariance.eigenvalues import eigenvalues_over_ranks
from lightning_saturation.covariance.moments import moments
from lightning_saturation.covariance.ranks import share_by_cost


def test_eigenvalues_are_numpys():
    x = torch.randn(30, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    eigenvalues = eigenvalues_over_ranks({"a": moments(x)})["a"]
    np.testing.assert_allclose(eigenvalues, np.linalg.eigvalsh(np.cov(x.numpy().T))[::-1], rtol=1e-10)


def test_a_problem_that_fails_is_missing_with_a_warning_and_the_others_stay(monkeypatch):
    good, bad = moments(torch.randn(9, 3)), moments(torch.randn(9, 2))
    bad.scatter[0, 1] = torch.nan
    with pytest.warns(UserWarning, match="The saturation of layer 'bad' is missing in this window: Expected a finite"):
        values = eigenvalues_over_ranks({"bad": bad, "good": good})
    assert values["bad"] is None
    assert len(values["good"]) == 3

    def never(_):
        raise torch.linalg.LinAlgError("did not converge")

    monkeypatch.setattr(torch.linalg, "eigvalsh", never)
    with pytest.warns(UserWarning, match="layer 'good' is missing in this window: did not converge"):
        assert eigenvalues_over_ranks({"good": good}) == {"good": None}


def test_each_rank_solves_its_share_and_one_sum_brings_all_together(monkeypatch):
    """Two ranks, one after the other in this process: what either sends is its own problems and zeros elsewhere."""
    generator = torch.Generator().manual_seed(0)
    layers = {name: moments(torch.randn(30, width, generator=generator)) for name, width in (("a", 9), ("b", 5))}
    layers["lost"] = moments(torch.randn(30, 3, generator=generator))
    layers["lost"].scatter[0, 1] = torch.nan
    sent = []
    for rank in range(2):
        monkeypatch.setattr(module, "rank_and_world", lambda group, rank=rank: (rank, 2))
        monkeypatch.setattr(module, "all_reduce", lambda packed, group: sent.append(packed) or packed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the lost one, on the rank that has it
            assert eigenvalues_over_ranks(layers) is not None
    assert all((part == 0).any() for part in sent)
    monkeypatch.setattr(module, "all_reduce", lambda packed, group: sent[0] + sent[1])
    monkeypatch.setattr(module, "rank_and_world", lambda group: (1, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = eigenvalues_over_ranks(layers)
    assert found.pop("lost") is None
    for name, values in found.items():
        torch.testing.assert_close(values, numpys(layers[name]), rtol=1e-12, atol=1e-12)
    assert eigenvalues_over_ranks({}) == {}


def numpys(layer):
    scatter = layer.scatter.numpy() / (int(layer.samples) - 1)
    return torch.from_numpy(np.linalg.eigvalsh(scatter)[::-1].copy())


def test_one_value_that_is_missing_makes_a_problem_missing(monkeypatch):
    """As where ranks disagree: a layer is not half there."""
    monkeypatch.setattr(module, "covariance_eigenvalues", lambda _: torch.tensor([1.0, torch.nan]).double())
    assert eigenvalues_over_ranks({"a": moments(torch.randn(9, 2))}) == {"a": None}


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text("abc", max_size=3), st.integers(1, 4096), max_size=9), st.integers(1, 4))
def test_every_problem_is_one_ranks_and_the_load_is_even(widths, world):
    shares = share_by_cost({name: width**3 for name, width in widths.items()}, world)
    assert sorted(name for share in shares for name in share) == sorted(widths)
    loads = [sum(widths[name] ** 3 for name in share) for share in shares]
    # Greedy, largest first: no rank has more than the average and one problem on top.
    assert max(loads) <= sum(loads) / world + max((w**3 for w in widths.values()), default=0)
