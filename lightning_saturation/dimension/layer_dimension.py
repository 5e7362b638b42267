"""The dimensions of one layer's rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from lightning_saturation.covariance.eigenvalues import pca_eigenvalues
from lightning_saturation.covariance.spectrum import check_delta, intrinsic_dimension
from lightning_saturation.covariance.state_metric import accumulation_device
from lightning_saturation.dimension.copies import without_copies
from lightning_saturation.dimension.neighbours import two_nearest
from lightning_saturation.dimension.report import LayerDimension
from lightning_saturation.dimension.two_nn import two_nn_estimate, two_nn_scales
from lightning_saturation.dimension.two_nn_law import check_options, error_over_splits, estimate_from_nearest


@dataclass(frozen=True)
class DimensionOptions:
    """How dimensions are estimated; arguments as in ``measure_dimension``."""

    delta: float = 0.9
    discard: float = 0.1
    estimator: Literal["fit", "mle"] = "fit"
    per_class: bool = False
    scales: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_delta(self.delta)
        check_options(self.discard, self.estimator)


def layer_dimension(rows: Tensor, labels: Tensor, options: DimensionOptions) -> LayerDimension:
    """Return the dimensions of ``rows`` (samples, features); what cannot be estimated is NaN, and ``note`` says why."""
    rows = rows.detach().to(accumulation_device(rows.device))
    finite = rows.isfinite().all(dim=1)
    skipped = int((~finite).sum())
    if skipped:
        rows, labels = rows[finite], labels[finite.cpu()]
    points = without_copies(rows)
    nearest = two_nearest(points)
    notes = []
    told: dict[str, Any] = {}
    duplicates = len(rows) - len(points)
    law: Any = {"discard": options.discard, "estimator": options.estimator}
    try:
        estimate = estimate_from_nearest(nearest, duplicates=duplicates, **law)
    except ValueError as error:
        notes.append(str(error))
    else:
        spread = error_over_splits(nearest, seed=options.seed, **law)
        told = {"two_nn": estimate.dimension, "standard_error": spread, "low": estimate.low, "high": estimate.high}
        told["lower_bound"] = estimate.beyond_reach
    classes, missing = _classes(rows, labels, options) if options.per_class else ({}, "")
    scales = two_nn_scales(rows, seed=options.seed, **law) if options.scales and told else []
    return LayerDimension(
        features=rows.shape[1],
        samples=len(rows),
        **told,
        pca=intrinsic_dimension(pca_eigenvalues(rows), delta=options.delta) if len(rows) > 1 else math.nan,
        duplicates=duplicates,
        skipped=skipped,
        classes=classes,
        scales=tuple((scale.points, scale.dimension, scale.standard_error) for scale in scales),
        note="; ".join(filter(None, [*notes, missing])),
    )


def _classes(rows: Tensor, labels: Tensor, options: DimensionOptions) -> tuple[dict[str, float], str]:
    """Return the TwoNN dimension of each class by its label, and what is missing."""
    classes, missing = {}, []
    for label in sorted(set(labels.tolist())):
        if label < 0:
            continue
        inside = rows[(labels == label).to(rows.device)]
        try:
            estimate = two_nn_estimate(inside, discard=options.discard, estimator=options.estimator)
            classes[str(label)] = estimate.dimension
        except ValueError:
            missing.append(str(label))
    if not bool((labels >= 0).any()):
        return {}, "no labels for these rows"
    return classes, f"no dimension for classes {', '.join(missing)}" if missing else ""


def input_rows(batch: object) -> Tensor | None:
    """Return the inputs in ``batch`` as rows, or None where they are no batch of floating-point numbers."""
    first = batch[0] if isinstance(batch, list | tuple) and batch else batch
    if isinstance(first, Tensor) and first.is_floating_point() and first.ndim > 1 and not first.is_nested:
        return first.flatten(1)
    return None


def label_rows(batch: object) -> Tensor | None:
    """Return the labels in ``batch``, one integer per sample, or None where there are none."""
    if not isinstance(batch, list | tuple) or len(batch) < 2:
        return None
    labels = batch[1]
    whole = isinstance(labels, Tensor) and not labels.is_floating_point() and not labels.is_complex()
    return labels.long() if whole and labels.ndim == 1 else None
