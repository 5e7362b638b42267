"""The statistics of one layer over one window."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor

from lightning_saturation.functional import spectrum


@dataclass(frozen=True)
class LayerStatistics:
    """What one layer's covariance says; every number but ``features`` and ``samples`` is NaN where it is missing.

    ``skipped`` counts rows left out because they held NaN or infinity. ``eigenvalues`` are those of the covariance,
    float64 on the CPU, largest first, or None where they were not kept or the eigenproblem failed.
    """

    features: int
    samples: int
    intrinsic_dimension: float
    saturation: float
    continuous_saturation: float
    effective_rank: float
    participation_ratio: float
    stable_rank: float
    total_variance: float
    skipped: int = 0
    eigenvalues: Tensor | None = field(default=None, compare=False, repr=False)

    @classmethod
    def from_eigenvalues(
        cls, eigenvalues: Tensor | None, *, features: int, samples: int, skipped: int = 0, delta: float = 0.99
    ) -> LayerStatistics:
        """Return the statistics of a covariance with ``eigenvalues`` (features,); None stands for a failed problem."""
        if eigenvalues is None or samples == 0:
            return cls(features, samples, *7 * (math.nan,), skipped)
        eigenvalues = eigenvalues.double().cpu().clamp(min=0).sort(descending=True).values
        k = spectrum.intrinsic_dimension(eigenvalues, delta=delta)
        return cls(
            features=features,
            samples=samples,
            intrinsic_dimension=k,
            saturation=k / features,
            continuous_saturation=float(spectrum.saturation(eigenvalues, delta=delta, continuous=True)),
            effective_rank=float(spectrum.effective_rank(eigenvalues)),
            participation_ratio=float(spectrum.participation_ratio(eigenvalues)),
            stable_rank=float(spectrum.stable_rank(eigenvalues)),
            total_variance=float(eigenvalues.sum()),
            skipped=skipped,
            eigenvalues=eigenvalues,
        )

    @property
    def too_few_samples(self) -> bool:
        """Whether fewer samples than features cap the dimension: ``samples`` rows span at most ``samples − 1``."""
        return self.samples <= self.features
