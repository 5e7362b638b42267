"""What two networks put out for one batch, in the form in which pairs of layers are compared."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from lightning_saturation.arguments import check_choice
from lightning_saturation.capture.capture import Capture
from lightning_saturation.capture.evaluation import each_batch, run
from lightning_saturation.capture.pooling import Pooling
from lightning_saturation.capture.select import layout_of, select_layers
from lightning_saturation.similarity.dft import fourier_resize

Method = Literal["svcca", "pwcca", "cka", "debiased_cka", "procrustes", "dft_cca"]
Outputs = dict[str, Tensor]
"""Rows (samples, features), or maps (samples, channels, height, width), by layer in the order in which they ran."""

Size = tuple[int, int]


class Key(NamedTuple):
    """One layer of network 0 or 1, seen at one height and width (None for rows)."""

    side: int
    layer: str
    size: Size | None


def check_method(method: Any) -> Method:
    """Return ``method`` if it is one of the known ones, else raise a ``ValueError``."""
    known: Method = check_choice("method", method, get_args(Method))
    return known


def outputs_of(
    models: Sequence[nn.Module],
    batches: Iterable[Any],
    *,
    layers: Sequence[Sequence[str] | None],
    exclude: Sequence[str],
    pooling: Pooling | None,
    max_batches: int | None,
    device: torch.device | str | None,
    progress: bool,
) -> Generator[list[Outputs]]:
    """Yield what the layers of each of ``models`` put out for each batch, in evaluation mode and without gradients.

    With ``pooling=None`` outputs come as maps. Samples with NaN or infinity anywhere are left out of all layers.
    """
    captures = [
        Capture(model, None, layers=names, exclude=exclude, pooling=pooling)
        for model, names in zip(models, layers, strict=True)
    ]
    modules = [select_layers(model, names, exclude) for model, names in zip(models, layers, strict=True)]
    skipped = 0
    bar = "similarity" if progress else None
    with each_batch(models, batches, max_batches=max_batches, device=device, bar=bar) as each:
        for batch, homes in each:
            seen: list[Outputs] = []
            for model, capture, home, found in zip(models, captures, homes, modules, strict=True):
                outputs: Outputs = {}
                capture.record = _collector(outputs, found if pooling is None else None)
                with capture:
                    run(model, batch, home)
                seen.append(outputs)
            clean, bad = _finite(seen)
            skipped += bad
            yield clean
    if skipped:
        warnings.warn(f"{skipped} samples hold NaN or infinity in some layer and are left out.", stacklevel=3)


def _collector(outputs: Outputs, modules: Mapping[str, nn.Module] | None) -> Any:
    def record(name: str, output: Tensor) -> None:
        if modules is not None:
            output = _as_maps(name, modules[name], output)
        # A layer that runs twice in a forward gives its outputs one after the other.
        outputs[name] = torch.cat([outputs[name], output]) if name in outputs else output

    return record


def _as_maps(name: str, module: nn.Module, output: Tensor) -> Tensor:
    """Return ``output`` as (samples, channels, height, width); tokens lie along the width."""
    layout = layout_of(module, output.ndim)
    if output.ndim <= layout.unbatched:
        output = output[None]
    maps = output.movedim((layout.batch, output.ndim + layout.features), (0, 1)) if output.ndim > 2 else output
    if maps.ndim > 4:
        raise ValueError(f"Expected outputs with at most two spatial dimensions, got {maps.ndim - 2} in {name!r}.")
    return maps.reshape(*maps.shape[:2], *(1,) * (4 - maps.ndim), *maps.shape[2:])


def _finite(seen: list[Outputs]) -> tuple[list[Outputs], int]:
    """Return ``seen`` with the samples that are finite everywhere, and how many are not."""
    everything = [(name, output) for outputs in seen for name, output in outputs.items()]
    counts = {name: len(output) for name, output in everything}
    if len(set(counts.values())) > 1:
        raise ValueError(
            "Expected every layer to put out one row per sample, so that rows can be paired, but their numbers differ:"
            f" {counts}. Take layers that run several times, or on parts of a batch, out with `exclude`."
        )
    if not everything:
        return seen, 0
    home = everything[0][1].device
    finite = torch.stack([output.flatten(1).isfinite().all(1).to(home) for _, output in everything]).all(0)
    bad = int((~finite).sum())
    if bad:
        seen = [{name: output[finite.to(output.device)] for name, output in outputs.items()} for outputs in seen]
    return seen, bad


def view(output: Tensor, *, size: Size | None, method: Method) -> Tensor:
    """Return ``output`` as (frequencies, samples, features), float64 or complex128, at ``size``.

    Rows are one "frequency"; so are maps whose positions are samples.
    """
    output = output.double()
    if size is None:
        return output[None]
    maps = fourier_resize(output, size)
    if method == "dft_cca":
        spectra: Tensor = torch.fft.rfft2(maps, norm="ortho").permute(2, 3, 0, 1)
        return spectra.flatten(0, 1)
    return maps.permute(0, 2, 3, 1).flatten(0, 2)[None]
