"""What two networks put out for one batch, in the form in which pairs of layers are compared."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from lightning_saturation.capture.capture import Capture
from lightning_saturation.capture.evaluation import Batches
from lightning_saturation.capture.pooling import Layout
from lightning_saturation.capture.represent import unpaired
from lightning_saturation.capture.select import CaptureOptions
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


def outputs_of(
    models: Sequence[nn.Module], options: Sequence[CaptureOptions], batches: Batches
) -> Generator[list[Outputs]]:
    """Yield what the layers of each of ``models`` put out for each batch, in evaluation mode and without gradients.

    Each has its own ``options``; with ``pooling=None`` outputs come as maps. Samples with NaN or infinity anywhere are
    left out of all layers. So are, with one warning, layers that do not put out one row per sample, which cannot be
    paired with others.
    """
    captures = [Capture(model, None, own) for model, own in zip(models, options, strict=True)]
    skipped = 0
    odd: list[set[str]] | None = None
    with batches.over(*models) as each:
        for batch, homes in each:
            seen: list[Outputs] = []
            for model, capture, home in zip(models, captures, homes, strict=True):
                outputs: Outputs = {}
                capture.record = _collector(outputs, capture if capture.pooling is None else None)
                with capture:
                    for _ in capture.attempts(batch):
                        outputs.clear()
                        batches.run(model, batch, home)
                seen.append(outputs)
            if odd is None:
                odd = unpaired(seen, captures[0].size)
            kept = [{n: o for n, o in s.items() if n not in out} for s, out in zip(seen, odd, strict=True)]
            clean, bad = _finite(kept)
            skipped += bad
            yield clean
    if skipped:
        warnings.warn(f"{skipped} samples hold NaN or infinity in some layer and are left out.", stacklevel=3)


def _collector(outputs: Outputs, capture: Capture | None) -> Any:
    def record(name: str, output: Tensor) -> None:
        if capture is not None:
            output = _as_maps(name, capture.layout(name, output), output)
        # A layer that runs twice in a forward gives its outputs one after the other.
        outputs[name] = torch.cat([outputs[name], output]) if name in outputs else output

    return record


def _as_maps(name: str, layout: Layout, output: Tensor) -> Tensor:
    """Return ``output`` as (samples, channels, height, width); tokens lie along the width."""
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
