"""The dimension of the data in every layer, without any Trainer."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import nn

from lightning_saturation.capture.capture import Capture
from lightning_saturation.capture.evaluation import Batches, Forward, fresh_weights, with_weights
from lightning_saturation.capture.masks import Mask
from lightning_saturation.capture.pooling import Pooling, check_pooling
from lightning_saturation.capture.select import CaptureOptions, check_output_layers, choose_output_layers
from lightning_saturation.dimension.layer_dimension import DimensionOptions, input_rows, label_rows
from lightning_saturation.dimension.report import INPUT, DimensionReport, LayerDimension
from lightning_saturation.dimension.row_window import RowWindow
from lightning_saturation.dimension.two_nn_law import FEWEST


def measure_dimension(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    layers: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    output_layers: Sequence[str] | None = None,
    per_class: bool = False,
    samples: int = 2000,
    pooling: Pooling = "flatten",
    delta: float = 0.9,
    discard: float = 0.1,
    estimator: Literal["fit", "mle"] = "fit",
    scales: bool = False,
    baseline: Literal["random"] | None = None,
    seed: int = 0,
    max_bytes: int = 2**30,
    max_batches: int | None = None,
    device: torch.device | str | None = None,
    progress: bool = True,
    mask: Mask = None,
    forward: Forward | None = None,
) -> DimensionReport:
    """Return the TwoNN and PCA dimension of the data in the layers of ``model``, as it is in evaluation mode.

    A batch is a tensor, a tuple or list of input and labels, or a dict of keyword arguments. The input itself is the
    first entry of the report, where it is a floating-point tensor. The model runs without gradients on its own device,
    or on ``device`` for as long as this lasts; its modes, device and weights are as before afterwards.

    Args:
        model: any module.
        batches: what it runs on, best in the same order every time: they run once more for the baseline, and once more
            where the rows of all layers together exceed ``max_bytes``, and it is by their order that samples are kept.
        layers: names or globs to measure, None for all linear, convolutional, recurrent and attention layers.
        exclude: names or globs to leave out.
        output_layers: names or globs that ``last_hidden`` skips, None for the layers that feed no other one.
        per_class: also give the dimension of the samples of each class alone; needs labels, one integer a sample.
        samples: how many samples are kept, a uniform choice among all, the same for all layers. TwoNN compares each
            with each, so time grows with the square.
        pooling: how an output becomes a row. ``"flatten"``, the whole representation, is what the source measures.
        delta: share of variance that the PCA dimension holds.
        discard: share of the samples with the largest distance ratios that TwoNN leaves out.
        estimator: ``"fit"`` or ``"mle"``, see :func:`~lightning_saturation.functional.two_nn_dimension`.
        scales: also estimate on N/2, N/4, … samples, see :func:`~lightning_saturation.functional.two_nn_scales`.
        baseline: ``"random"`` measures the same network with newly drawn weights too.
        seed: of the choice of samples and the weights of the baseline; global random state is neither used nor changed.
        max_bytes: memory for rows at a time. One layer alone may take more.
        max_batches: at most so many batches of each run.
        device: where the model runs, None for where it is.
        progress: whether to show bars.
        mask: which positions are no padding, as in :class:`SaturationMonitor`; for every ``pooling`` but ``"flatten"``.
        forward: ``forward(model, batch)`` for models that take more than one tensor.

    Raises ``ValueError`` for unknown layers, options out of range, no batch, and batches that can be run only once
    where once is not enough.

    Source: Ansuini et al., *Intrinsic dimension of data representations in deep neural networks*, 2019.

    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> list(measure_dimension(model, torch.randn(10, 32, 4), progress=False).layers)
    ['input data', '0', '2']
    """
    if samples < FEWEST:
        raise ValueError(f"Expected `samples` of at least {FEWEST}, got {samples}.")
    if baseline not in (None, "random"):
        raise ValueError(f"Expected `baseline` to be 'random' or None, got {baseline!r}.")
    options = DimensionOptions(delta, discard, estimator, per_class, scales, seed=seed)
    data = Batches(batches, max_batches, device, forward, bar="dimension" if progress else None)
    capture = Capture(model, None, CaptureOptions(layers, exclude, check_pooling(pooling), mask))
    check_output_layers(capture.names, output_layers)
    measured = _dimensions(data, model, model, capture, options, samples=samples, max_bytes=max_bytes)
    random = None
    if baseline == "random":
        weights, kept = fresh_weights(model, seed=seed)
        if kept:
            warnings.warn(
                f"The baseline keeps the trained values of {kept}: their modules have no `reset_parameters`.",
                stacklevel=2,
            )
        called = with_weights(model, weights)
        random = _dimensions(data, model, called, capture, options, samples=samples, max_bytes=max_bytes)
    ran = [name for name in measured if name != INPUT]
    return DimensionReport(
        layers=measured,
        stage="measured",
        delta=delta,
        output_layers=choose_output_layers(ran, output_layers, capture.look.flow.outputs or None),
        baseline=random,
    )


def _dimensions(
    data: Batches,
    model: nn.Module,
    called: Callable[..., Any],
    capture: Capture,
    options: DimensionOptions,
    *,
    samples: int,
    max_bytes: int,
) -> dict[str, LayerDimension]:
    """Return the dimensions of the input and the captured layers of ``model``, in the order in which they run.

    The batches run through ``called`` as often as it takes to hold the rows of some layers at a time.
    """
    found: dict[str, LayerDimension] = {}
    order: dict[str, None] = {}
    left: set[str] | None = None
    while left is None or left:
        window = RowWindow((), samples=samples, max_bytes=max_bytes, seed=options.seed)
        record = partial(_record, window, left)
        with data.over(model) as each, capture:
            capture.record = record
            for batch, (home,) in each:
                window.labels, rows = label_rows(batch), input_rows(batch)
                for again in capture.attempts(batch):
                    if again:
                        window.reset()
                    if rows is not None:
                        record(INPUT, rows)
                    data.run(called, batch, home)
        if window.is_empty and order:
            raise ValueError(
                "Expected `batches` that can be run more than once, such as a DataLoader or a list: the rows of"
                f" {list(order)} do not fit into `max_bytes` = {max_bytes} together."
            )
        if window.is_empty:
            raise ValueError("Expected `batches` with at least one batch that reaches a measured layer, got none.")
        found |= window.dimensions(options)
        order |= dict.fromkeys(window.order)
        left = set(window.refused)
    unseen = [name for name in capture.names if name not in order]
    if unseen:
        warnings.warn(f"No dimension for {unseen}: these layers were never run, or run narrower.", stacklevel=3)
    return {name: found[name] for name in order if name in found}


def _record(window: RowWindow, only: set[str] | None, name: str, rows: torch.Tensor) -> None:
    if only is None or name in only:
        window.add(name, rows)
