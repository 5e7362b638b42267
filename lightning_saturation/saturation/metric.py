"""Layer saturation as a metric."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_saturation.covariance import spectrum
from lightning_saturation.covariance.covariance import Covariance
from lightning_saturation.covariance.state_metric import PlottedMetric


class Saturation(PlottedMetric, Covariance):
    """Return the share of the feature space that all rows seen fill, at explained variance ``delta``.

    ``update(x)`` takes rows (samples, features), ``compute()`` returns a 0-d tensor in [0, 1], NaN without any row.
    Fewer rows than features cap the value at ``(samples - 1) / features``. Raises ``ValueError`` for a ``delta``
    outside (0, 1], rows that are not two-dimensional, or a width that changes.

    Source: Shenk et al., *Spectral Analysis of Latent Representations*, section 2.

    >>> import torch
    >>> metric = Saturation()
    >>> metric.update(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [2.0, 0.0]]))
    >>> metric.compute()
    tensor(0.5000, dtype=torch.float64)
    """

    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    def __init__(self, delta: float = 0.99, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.delta = spectrum.check_delta(delta)

    def compute(self) -> Tensor:
        """Return the saturation over all ranks."""
        if not int(self.samples):
            return self._nan()
        return spectrum.saturation(self.eigenvalues(), delta=self.delta)
