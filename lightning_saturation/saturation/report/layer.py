"""The statistics of one layer over one window."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from torch import Tensor

from lightning_saturation.covariance import spectrum
from lightning_saturation.covariance.sketch import Sketch
from lightning_saturation.covariance.sketch_bounds import dimension_bracket, estimated_eigenvalues


@dataclass(frozen=True)
class LayerStatistics:
    """What one layer's covariance says; every number but ``features`` and ``samples`` is NaN where it is missing.

    ``samples`` are the rows that the numbers rest on; under a budget these are some of the rows there were. ``skipped``
    counts rows left out because they held NaN or infinity. ``eigenvalues`` are those of the covariance, float64 on the
    CPU, largest first, or None where they were not kept or the eigenproblem failed. ``saturation_lower`` and
    ``saturation_upper`` are certain: they meet in ``saturation`` unless the layer was sketched. Of a sketch all other
    numbers are estimates, but the total variance.

    ``rows`` are ``"samples"``; or ``"positions"``, where a batch gives more rows than it has samples (tokens, windows,
    a layer that runs several times); or ``"none"``, where it gives a single one, or the same whatever the data are. The
    last are no data, and not in the average.

    ``inputs`` and ``weights`` count the layer's own, ``reach`` is how many directions its outputs can have however wide
    it is: as many as its inputs have, of a linear layer.
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
    saturation_lower: float = math.nan
    saturation_upper: float = math.nan
    rows: str = "samples"
    inputs: float = field(default=math.nan, compare=False)
    weights: float = field(default=math.nan, compare=False)
    reach: float = field(default=math.nan, compare=False)

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
            saturation_lower=k / features,
            saturation_upper=k / features,
        )

    @classmethod
    def from_sketch(cls, sketch: Sketch, samples: int, skipped: int = 0, *, delta: float = 0.99) -> LayerStatistics:
        """Return the statistics that ``sketch`` estimates, with saturation between its certified bounds."""
        features = len(sketch.mean)
        # Rows may count several times in the sketch; the variance is that of the rows there are.
        seen = max(int(sketch.samples), 2)
        eigenvalues = estimated_eigenvalues(sketch) * ((seen - 1) / seen * samples / max(samples - 1, 1))
        guess = cls.from_eigenvalues(eigenvalues, features=features, samples=samples, skipped=skipped, delta=delta)
        if samples == 0:
            return guess
        lower, upper = dimension_bracket(sketch, delta=delta)
        k = min(max(guess.intrinsic_dimension, lower), upper)
        return replace(
            guess,
            intrinsic_dimension=k,
            saturation=k / features,
            continuous_saturation=min(max(guess.continuous_saturation, (lower - 1) / features), upper / features),
            saturation_lower=lower / features,
            saturation_upper=upper / features,
        )

    @classmethod
    def from_numbers(cls, numbers: Mapping[str, Any]) -> LayerStatistics:
        """Return the statistics with these ``numbers`` by name; missing ones are NaN, unknown ones are left out."""
        known = {name: numbers.get(name, math.nan) for name in NUMBERS}
        whole = {name: int(known[name]) for name in _WHOLE if not math.isnan(known[name])}
        return cls(**{**known, **whole}, eigenvalues=numbers.get("eigenvalues"), rows=numbers.get("rows", "samples"))

    @property
    def is_bracketed(self) -> bool:
        """Whether a sketch leaves more than one saturation possible."""
        return self.saturation_lower < self.saturation_upper

    @property
    def too_few_samples(self) -> bool:
        """Whether fewer samples than features cap the dimension: ``samples`` rows span at most ``samples − 1``."""
        return self.samples <= self.features


NUMBERS = tuple(field.name for field in fields(LayerStatistics) if field.name not in ("eigenvalues", "rows"))
"""The numbers of a layer by name."""

_WHOLE = ("features", "samples", "skipped", "intrinsic_dimension")


def with_rows(layers: Mapping[str, LayerStatistics], kinds: Mapping[str, str]) -> dict[str, LayerStatistics]:
    """Return ``layers``, each with what its rows are by ``kinds``."""
    return {name: replace(layer, rows=kinds.get(name, layer.rows)) for name, layer in layers.items()}
