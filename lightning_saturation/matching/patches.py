"""What the units of a layer look at: the parts of images that drive them most."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from lightning_saturation.arguments import check_count
from lightning_saturation.capture.evaluation import Batches
from lightning_saturation.capture.select import layout_of, select_layers


class Patch(NamedTuple):
    """A part of an image, (channels, height, width), to which a unit answers with ``value``.

    ``sample`` counts images over all batches, ``top`` and ``left`` say where in it the part begins.
    """

    value: float
    sample: int
    top: int
    left: int
    image: Tensor


@dataclass(frozen=True)
class UnitPatches:
    """For each of ``units`` of ``layer`` its ``patches``, strongest first, each of another image."""

    layer: str
    units: tuple[int, ...]
    patches: tuple[tuple[Patch, ...], ...]

    def plot(self, other: UnitPatches | None = None) -> Figure:
        """Return a matplotlib figure: a row per unit, beside it the row of the unit it goes with in ``other``."""
        from lightning_saturation.matching.plots import patch_figure

        return patch_figure(self, other)


def strongest_patches(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    layer: str,
    units: Sequence[int],
    count: int = 9,
    max_batches: int | None = None,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> UnitPatches:
    """Return, for each of ``units`` (channels) of ``layer``, the ``count`` parts of images that it answers to most.

    A part is the smallest rectangle with all pixels on which the unit's answer depends at the place where it is
    strongest, by the gradient: a convolution's receptive field, cut at the image's edge, without what a rectifier or a
    maximum on the way shuts out. One part is taken of an image. Batches are images (samples, channels, height,
    width), or begin with them. The model runs in evaluation mode and stays as it was.

    For units that :func:`match_networks` found to go together, ask both networks and plot one beside the other:
    ``strongest_patches(a, …, units=[pair["unit"] for pair in found.pairs(layer)])``, and ``"partner"`` for the other.

    Raises ``ValueError`` for an unknown layer or unit, no batch, or inputs that are not images.

    Source: Li et al., *Convergent learning*, 2016, figures 2 and 5.
    """
    check_count("count", count)
    chosen = select_layers(model, [layer])
    if len(chosen) != 1:
        raise ValueError(f"Expected `layer` to be the name of one layer, got {layer!r}, which is {list(chosen)}.")
    [(name, module)] = chosen.items()
    best: list[list[tuple[float, int, int, Tensor]]] = [[] for _ in units]
    samples = 0
    data = Batches(batches, max_batches, device, bar="patches" if progress else None)
    with data.over(model) as each:
        for batch, (home,) in each:
            images = _images(batch).to(home)
            answers = _answers(model, module, name, images)
            if unknown := [unit for unit in units if not 0 <= unit < answers.shape[1]]:
                raise ValueError(f"Expected `units` from 0 to {answers.shape[1] - 1} in {name!r}, got {unknown}.")
            for rank, unit in enumerate(units):
                values, places = answers[:, unit].max(dim=1)
                for index in values.topk(min(count, len(values))).indices.tolist():
                    image = images[index].cpu()
                    best[rank].append((float(values[index]), samples + index, int(places[index]), image))
                best[rank] = sorted(best[rank], key=lambda found: -found[0])[:count]
            samples += len(images)
        if not samples:
            raise ValueError("Expected `batches` with at least one image, got none.")
        parts = [
            tuple(_part(model, module, name, unit, *found, home=home) for found in own)
            for unit, own in zip(units, best, strict=True)
        ]
    return UnitPatches(name, tuple(units), tuple(parts))


def _images(batch: Any) -> Tensor:
    images = batch[0] if isinstance(batch, list | tuple) else batch
    if not isinstance(images, Tensor) or images.ndim != 4:
        shape = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise ValueError(f"Expected batches of images (samples, channels, height, width), got {shape}.")
    return images


def _answers(model: nn.Module, module: nn.Module, name: str, images: Tensor) -> Tensor:
    """Return what ``module`` puts out for ``images`` as (samples, units, places)."""
    seen: list[Tensor] = []
    handle = module.register_forward_hook(lambda _, inputs, output: seen.append(output))
    try:
        model(images)
    finally:
        handle.remove()
    if not seen:
        raise ValueError(f"Expected `layer` to run when the model does, but {name!r} did not.")
    output = seen[-1]
    output = output.movedim(layout_of(module, output.ndim).features, 1)
    return output[..., None] if output.ndim == 2 else output.flatten(2)


def _part(
    model: nn.Module,
    module: nn.Module,
    name: str,
    unit: int,
    value: float,
    sample: int,
    place: int,
    image: Tensor,
    *,
    home: torch.device,
) -> Patch:
    """Return the part of ``image`` on which ``unit`` depends at ``place``; all of it where that is nothing."""
    with torch.enable_grad():
        asked = image.to(home)[None].clone().requires_grad_()
        answer = _answers(model, module, name, asked)[0, unit, place]
        (slope,) = torch.autograd.grad(answer, asked, allow_unused=True)
    used = torch.zeros(image.shape[1:], dtype=torch.bool) if slope is None else (slope[0] != 0).any(0).cpu()
    used = used if used.any() else ~used
    ends = used.nonzero().aminmax(dim=0)
    (top, left), (bottom, right) = ends.min.tolist(), ends.max.tolist()
    return Patch(value, sample, top, left, image[:, top : bottom + 1, left : right + 1].clone())
