"""The spectrum of a covariance of few rows, without the covariance."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_saturation.covariance.spectrum import covariance_eigenvalues
from lightning_saturation.shapes import Float


def gram_eigenvalues(rows: Float[Tensor, "samples features"]) -> Float[Tensor, " features"]:
    """Return the eigenvalues of the unbiased covariance of ``rows``, float64, largest first; zeros for one row.

    The (samples, samples) products of centred rows have the same eigenvalues but for zeros, and eight of them take
    microseconds where a covariance of 2,000 features takes a second. Raises as
    :func:`~.spectrum.covariance_eigenvalues`.

    >>> gram_eigenvalues(torch.tensor([[0.0, 0.0, 1.0], [2.0, 0.0, 1.0]]))
    tensor([2., 0., 0.], dtype=torch.float64)
    """
    samples, features = rows.shape
    centred = rows.double() - rows.double().mean(0)
    # Autocast would run the product in half precision; float64 is immune to it.
    eigenvalues = covariance_eigenvalues(centred @ centred.T / max(samples - 1, 1))[:features]
    return torch.cat([eigenvalues, eigenvalues.new_zeros(features - len(eigenvalues))])
