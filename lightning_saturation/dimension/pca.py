"""Principal components of rows, whichever of samples and features there are fewer of."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_saturation.covariance.moments import add_rows, covariance, empty_sums, from_sums
from lightning_saturation.covariance.spectrum import covariance_eigenvalues
from lightning_saturation.shapes import Float

_BLOCK = 2**23  # numbers in a temporary: 64 MiB in float64


@torch.no_grad()
def pca_eigenvalues(rows: Float[Tensor, "samples features"]) -> Float[Tensor, " components"]:
    """Return the eigenvalues of the covariance of ``rows``, largest first, float64: min(samples, features) of them.

    With fewer samples than features they come from the samples' inner products, which have the same ones. Rows must be
    finite; fewer than two have no covariance, and zeros come back.
    """
    rows = rows.detach()
    samples, features = rows.shape
    if samples < 2:
        return torch.zeros(min(samples, features), dtype=torch.float64, device=rows.device)
    if features <= samples:
        sums = empty_sums(features, device=rows.device)
        for block in torch.split(rows, max(1, _BLOCK // max(1, features))):
            add_rows(sums, block, single=False)
        return covariance_eigenvalues(covariance(from_sums(sums)))
    products = torch.zeros(samples, samples, dtype=torch.float64, device=rows.device)
    for part in torch.split(rows, max(1, _BLOCK // samples), dim=1):
        centred = part.double()
        centred = centred - centred.mean(0)
        products.addmm_(centred, centred.T)
    return covariance_eigenvalues(products / (samples - 1))
