"""Eigenvalues of rows, wide or tall, against the covariance itself."""

from __future__ import annotations

import pytest
import torch

from lightning_saturation.covariance import eigenvalues
from lightning_saturation.covariance.eigenvalues import pca_eigenvalues


@pytest.mark.parametrize(("samples", "features"), [(50, 7), (7, 50), (20, 20), (2, 3), (3, 1)])
@pytest.mark.parametrize("block", [2**23, 30])
def test_equals_the_covariances(samples: int, features: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eigenvalues, "_BLOCK", block)
    x = torch.randn(samples, features, generator=torch.Generator().manual_seed(0)) + 1e3
    expected = torch.linalg.eigvalsh(torch.cov(x.T.double()).reshape(features, features)).flip(0)
    found = pca_eigenvalues(x)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected[: len(found)].clamp(min=0), rtol=1e-9, atol=1e-9)
    assert len(found) == min(samples, features)


def test_too_few_rows_have_no_variance() -> None:
    assert pca_eigenvalues(torch.ones(1, 4)).tolist() == [0.0]
    assert pca_eigenvalues(torch.ones(0, 4)).tolist() == []
