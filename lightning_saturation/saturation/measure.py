"""Saturation without any Trainer, in a few forward passes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from lightning_saturation.capture.evaluation import Batches, Forward
from lightning_saturation.capture.masks import Mask
from lightning_saturation.capture.pooling import Pooling, check_pooling
from lightning_saturation.capture.select import CaptureOptions, check_output_layers
from lightning_saturation.covariance.accumulation import CovarianceKind, MaxSamples, accumulation
from lightning_saturation.covariance.ranks import LOCAL, together
from lightning_saturation.covariance.spectrum import check_delta
from lightning_saturation.saturation.report.report import SaturationReport
from lightning_saturation.saturation.window import report_of, saturation_tracker


def measure_saturation(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    layers: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    output_layers: Sequence[str] | None = None,
    delta: float = 0.99,
    pooling: Pooling = "mean",
    max_batches: int | None = None,
    device: torch.device | str | None = None,
    progress: bool = True,
    process_group: Any = None,
    covariance: CovarianceKind = "auto",
    max_samples: MaxSamples = "default",
    state_device: torch.device | str | None = None,
    mask: Mask = None,
    forward: Forward | None = None,
) -> SaturationReport:
    """Return the saturation of the layers of ``model`` over ``batches``, as the model is in evaluation mode.

    A batch is a tensor, a tuple or list whose first element is the input (labels may follow), or a dict of keyword
    arguments; ``forward(model, batch)``, where given, runs the model on a batch of any other kind. The model runs
    without gradients on its own device, or on ``device`` for as long as this lasts; its modes and device are restored.
    ``layers``, ``exclude``, ``output_layers``, ``delta``, ``pooling``, ``covariance``, ``max_samples``,
    ``state_device`` and ``mask`` are those of :class:`~lightning_saturation.SaturationMonitor`. With a
    ``process_group`` the numbers are those over its ranks, and this is a collective call.

    Raises ``ValueError`` for unknown layers, a ``delta`` outside (0, 1], an unknown pooling, or no batch.

    Source: Shenk et al., *Spectral Analysis of Latent Representations*, section 2.

    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> measure_saturation(model, torch.randn(10, 32, 4), progress=False).layers["0"].samples
    320
    """
    check_delta(delta)
    options = CaptureOptions(layers, exclude, check_pooling(pooling), mask)
    data = Batches(batches, max_batches, device, forward, bar="saturation" if progress else None)
    kept = accumulation(covariance=covariance, max_samples=max_samples, state_device=state_device, pooling=pooling)
    tracker = saturation_tracker(model, options, stages=("test",), output_layers=output_layers, kept=kept)
    check_output_layers(tracker.names, output_layers)
    window = tracker.windows["test"]
    window.batches = data.number
    group = LOCAL if process_group is None else process_group
    with together(group):
        with data.over(model) as each:
            tracker.attach()
            try:
                for batch, (home,) in each:
                    for _ in tracker.attempts("test", batch):
                        data.run(model, batch, home)
            finally:
                tracker.detach()
        if process_group is None and window.is_empty:
            raise ValueError("Expected `batches` with at least one batch that reaches a tracked layer, got none.")
        report = report_of(tracker, "test", delta=delta, output_layers=output_layers, group=group)
    tracker.warn_about_missing(list(report.layers))
    return report
