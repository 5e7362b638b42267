"""Eigenproblems of all layers on one process; ranks are in the distributed tests."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

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


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text("abc", max_size=3), st.integers(1, 4096), max_size=9), st.integers(1, 4))
def test_every_problem_is_one_ranks_and_the_load_is_even(widths, world):
    shares = share_by_cost({name: width**3 for name, width in widths.items()}, world)
    assert sorted(name for share in shares for name in share) == sorted(widths)
    loads = [sum(widths[name] ** 3 for name in share) for share in shares]
    # Greedy, largest first: no rank has more than the average and one problem on top.
    assert max(loads) <= sum(loads) / world + max((w**3 for w in widths.values()), default=0)
