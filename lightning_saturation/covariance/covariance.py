"""The covariance of everything seen, as a metric."""

from __future__ import annotations

from torch import Tensor

from lightning_saturation.covariance.moments import covariance, from_sums
from lightning_saturation.covariance.moments_metric import MomentsMetric
from lightning_saturation.covariance.spectrum import covariance_eigenvalues


class Covariance(MomentsMetric):
    """Return the unbiased covariance (features, features), float64, of all rows seen, the same for any split of them.

    ``update(x)`` takes rows (samples, features); the first one fixes the number of features. Rows with NaN or infinity
    are left out and counted in ``skipped``. State is exact at large offsets and merges across batches, metrics and
    ranks, the latter by two all-reduces (``dist_sync_fn`` is not used). Casts of a parent module do not reach it.
    """

    def update(self, x: Tensor) -> None:
        """Add rows ``x`` (samples, features)."""
        self.add(x)

    def forward(self, x: Tensor) -> Tensor:
        """Add rows ``x`` (samples, features) and return the value of these rows alone."""
        self._check(x)  # against what was seen, while that is not set aside
        value: Tensor = super().forward(x)
        return value

    def compute(self) -> Tensor:
        """Return the covariance over all ranks."""
        return self.covariance()

    def covariance(self) -> Tensor:
        """Return the covariance (features, features) over all ranks; a collective call."""
        with self._synced():
            return covariance(from_sums(self._sums))

    def mean(self) -> Tensor:
        """Return the mean (features,) over all ranks; a collective call."""
        with self._synced():
            return from_sums(self._sums).mean

    def eigenvalues(self) -> Tensor:
        """Return the covariance's eigenvalues (features,), largest first, over all ranks; a collective call."""
        return covariance_eigenvalues(self.covariance())
