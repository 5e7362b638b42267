"""The spectra of a model's layers as operators, without any Trainer."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm  # comes with lightning

from lightning_saturation.capture.evaluation import Batches, evaluating
from lightning_saturation.capture.hooks import input_shapes
from lightning_saturation.capture.select import select_layers
from lightning_saturation.covariance.ranks import LOCAL, gather, rank_and_world, share_by_cost, together
from lightning_saturation.operators.density import EXACT_SIZE, check_options, eigenvalue_histogram
from lightning_saturation.operators.histogram import Histogram
from lightning_saturation.operators.layer_operator import OPERATOR_LAYERS, LayerOperator
from lightning_saturation.operators.report import SpectrumReport

Shapes = Mapping[str, set[tuple[int, ...]]]


def measure_spectrum(
    model: nn.Module,
    example_input: Any,
    *,
    layers: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    bins: int = 250,
    spikes: int = 32,
    probes: int | None = None,
    degree: int = 400,
    seed: int = 0,
    method: str = "auto",
    seconds: float | None = None,
    device: torch.device | str | None = None,
    progress: bool = True,
    process_group: Any = None,
) -> SpectrumReport:
    """Return the eigenvalue histograms of the linear and convolutional layers of ``model`` as operators.

    The model runs once on ``example_input`` (a batch as for ``measure_saturation``; its values do not matter, its shape
    does), in evaluation mode without gradients; modes, device and random generators are restored. ``layers`` and
    ``exclude`` are those of :func:`select_layers`; the options from ``bins`` to ``method`` are those of
    :func:`~lightning_saturation.functional.eigenvalue_histogram`. ``seconds`` bounds all layers together; the cheapest
    come first. With a ``process_group`` its ranks share the layers, and this is a collective call.

    A layer that has no histogram (not linear, not run, run on inputs of two shapes, weights that are not finite, out of
    time) is in ``missing`` with the reason. Raises ``ValueError`` for unknown layers and options out of range; what the
    model raises on an input that does not fit goes through.

    Source: *Evolution of Eigenvalue Decay in Deep Networks*.

    >>> report = measure_spectrum(nn.Linear(4, 8), torch.zeros(1, 4), progress=False)
    >>> report.layers["Linear"].structural_zeros
    4
    """
    if isinstance(example_input, DataLoader):
        raise TypeError("Expected `example_input` to be one batch, got a DataLoader; `next(iter(loader))` is one.")
    chosen = operator_layers(model, layers, exclude)
    data = Batches([example_input], device=device)
    with data.over(model) as each, input_shapes(model, chosen) as shapes:
        for batch, (home,) in each:
            # A model that draws random numbers in evaluation mode draws none from the user's generators.
            with torch.random.fork_rng([home] if home.type == "cuda" else []):
                data.run(model, batch, home)
    options = {"bins": bins, "spikes": spikes, "probes": probes, "degree": degree, "seed": seed, "method": method}
    group = LOCAL if process_group is None else process_group
    return spectra_over_ranks(chosen, shapes, options, seconds=seconds, progress=progress, group=group)


def operator_layers(
    model: nn.Module, layers: Sequence[str] | None = None, exclude: Sequence[str] = ()
) -> dict[str, nn.Module]:
    """Return the selected layers by name; by default those that are linear operators, a named other one stays in.

    Raises a ``ValueError`` where none of them is a linear operator.
    """
    chosen = select_layers(model, layers, exclude)
    linear = {name: layer for name, layer in chosen.items() if isinstance(layer, OPERATOR_LAYERS)}
    if not linear:
        kinds = sorted({type(layer).__name__ for layer in chosen.values()})
        raise ValueError(f"Expected linear or convolutional layers among those selected, got {kinds}.")
    return linear if layers is None else chosen


def spectra_over_ranks(
    layers: Mapping[str, nn.Module],
    shapes: Shapes,
    options: Mapping[str, Any],
    *,
    seconds: float | None = None,
    progress: bool = False,
    group: Any = LOCAL,
) -> SpectrumReport:
    """Return the report on ``layers`` that ran on ``shapes``, the same on all ranks; a collective call.

    Each rank takes its share of the layers; the results are gathered, so that they are the same everywhere to the last
    bit, whatever a time budget cut short on one rank.
    """
    check_options(**options, seconds=seconds)
    with together(group), ExitStack() as stack:
        rank, world = rank_and_world(group)
        names = [*(name for name in shapes if name in layers), *(name for name in layers if name not in shapes)]
        # A parametrised weight may change when looked at in training mode, as that of a spectral norm does.
        for layer in layers.values():
            stack.enter_context(evaluating(layer, None))
        missing = {name: why for name in names if (why := _why_not(layers[name], shapes.get(name, set())))}
        sizes = {name: next(iter(shapes[name])) for name in names if name not in missing}
        mine = share_by_cost({name: _cost(layers[name], size) for name, size in sizes.items()}, world)[rank]
        chosen = {name: (layers[name], sizes[name]) for name in mine}
        found = _solve(chosen, missing, options, seconds, progress and rank == 0)
        everyone = gather((found, missing, names, sizes), group)
        # Ranks on which other layers ran, or in another order, still end up with one report: the first rank's order.
        names, sizes = everyone[0][2], {name: size for _, _, _, theirs in everyone for name, size in theirs.items()}
        found = {name: histogram for theirs, _, _, _ in everyone for name, histogram in theirs.items()}
        missing = {name: why for _, theirs, _, _ in everyone for name, why in theirs.items() if name not in found}
    return SpectrumReport(
        layers={name: found[name] for name in names if name in found},
        missing={name: missing[name] for name in names if name in missing},
        input_shapes={name: sizes[name] for name in names if name in found},
    )


def _why_not(layer: nn.Module, shapes: set[tuple[int, ...]]) -> str:
    """Return why ``layer`` has no spectrum, or an empty string."""
    if not isinstance(layer, OPERATOR_LAYERS):
        return f"{type(layer).__name__} is no linear operator on feature maps"
    if not shapes:
        return "it did not run, or where hooks do not fire"
    if len(shapes) > 1:
        return f"it ran on inputs of several shapes: {', '.join(map(str, sorted(shapes)))}"
    weight: Any = layer.weight
    whole = 2 if isinstance(layer, nn.Linear) else 1 + len(next(iter(shapes)))
    if hasattr(weight, "full_tensor") or weight.ndim != whole:
        return "its weight is sharded over ranks"
    return ""


def _cost(layer: Any, shape: tuple[int, ...]) -> float:
    """Return about how many multiplications the histogram of ``layer`` takes."""
    pointwise = isinstance(layer, nn.Linear) or math.prod((*layer.kernel_size, *layer.stride)) == 1
    size = min(layer.weight.shape[:2]) if pointwise else math.prod(shape)
    product = layer.weight.numel() * (1 if pointwise else math.prod(shape[1:]))
    return float(size * product + size**3 if size <= EXACT_SIZE else 4000 * product)


def _solve(
    layers: Mapping[str, tuple[nn.Module, tuple[int, ...]]],
    missing: dict[str, str],
    options: Mapping[str, Any],
    seconds: float | None,
    progress: bool,
) -> dict[str, Histogram]:
    """Return the histograms of ``layers``; those that have none go to ``missing`` with the reason."""
    end = None if seconds is None else time.monotonic() + seconds
    found = {}
    with tqdm(total=len(layers), desc="spectra", unit="layer", disable=not progress, leave=False) as bar:
        for index, (name, (layer, shape)) in enumerate(layers.items()):
            # An equal part of the time that is left; what a layer does not use, those after it have.
            left = None if end is None else (end - time.monotonic()) / (len(layers) - index)
            try:
                if left is not None and left <= 0:
                    raise TimeoutError("Out of time before it began.")
                operator = LayerOperator(layer, shape)
                found[name] = eigenvalue_histogram(operator, **options, seconds=left, progress=_shown(bar, name))
            except (TimeoutError, ValueError, RuntimeError) as error:
                missing[name] = str(error)
            bar.update()
    return found


def _shown(bar: Any, name: str) -> Callable[[int], None]:
    """Return a function that counts the products for ``name`` on ``bar``."""
    done = 0

    def show(products: int) -> None:
        nonlocal done
        done += products
        bar.set_postfix_str(f"{name}: {done} products", refresh=False)
        bar.update(0)

    return show
