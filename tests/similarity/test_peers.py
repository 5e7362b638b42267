"""Side by side with installed packages, in the parts where they are right."""

import numpy as np
import pytest
import torch

from lightning_saturation.similarity.cca import cca, pwcca
from lightning_saturation.similarity.kernel_alignment import linear_cka
from tests.similarity.test_cca import representations


def test_cca_zoo_on_full_rank():
    peer = pytest.importorskip("cca_zoo.linear")
    x, y = representations(11)
    model = peer.CCA(n_components=4).fit([x.numpy(), y.numpy()])
    scores = model.transform([x.numpy(), y.numpy()])
    theirs = [abs(np.corrcoef(scores[0][:, i], scores[1][:, i])[0, 1]) for i in range(4)]
    np.testing.assert_allclose(cca(x, y).correlations, theirs, atol=1e-10)


def test_repsim_pwcca_is_the_mean_of_both_sides():
    repsim = pytest.importorskip("repsim")
    x, y = representations(12)
    theirs = repsim.pwcca([x.numpy(), y.numpy()])[0, 1]
    np.testing.assert_allclose(pwcca(x, y).mean, theirs, atol=1e-10)


def test_repsim_linear_cka():
    repsim = pytest.importorskip("repsim")
    x, y = representations(13)
    theirs = repsim.cka([x.numpy(), y.numpy()], kernel_type="linear", estimator="gretton")[0, 1]
    np.testing.assert_allclose(linear_cka(x, y), theirs, atol=1e-10)


def test_ckatorch_unbiased_hsic():
    hsic1 = pytest.importorskip("ckatorch.hsic").hsic1
    x, y = representations(14, samples=50)
    k, left = ((rows @ rows.T)[None] for rows in (x, y))
    cross, own, other = (float(hsic1(a, b)) for a, b in ((k, left), (k, k), (left, left)))
    np.testing.assert_allclose(linear_cka(x, y, debiased=True), cross / np.sqrt(own * other), rtol=1e-9)
    assert torch.get_default_dtype() == torch.float32
