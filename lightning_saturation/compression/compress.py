"""Layers replaced by two thinner ones."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_saturation.arguments import check_choice
from lightning_saturation.capture.capture import capture
from lightning_saturation.capture.evaluation import Batches, Forward
from lightning_saturation.capture.pooling import Pooling
from lightning_saturation.capture.select import select_layers
from lightning_saturation.compression.subspace import Size, Subspace, output_moments, subspace

Layer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


@dataclass(frozen=True)
class Replaced:
    """One layer before and after; ``rank`` is ``features`` where it was left alone. FLOPs are per sample."""

    features: int
    rank: int
    parameters_before: int
    parameters_after: int
    flops_before: int
    flops_after: int


class Compression:
    """What :func:`compress` did; calling it puts the original layers back.

    ``layers`` holds the layers looked at, replaced or not; parameters count those of the whole model, FLOPs (a
    multiplication and an addition each) those of the layers looked at, per sample.
    """

    def __init__(self, layers: dict[str, Replaced], others: int, originals: list[tuple[nn.Module, str, nn.Module]]):
        self.layers = layers
        self.parameters_before = others + sum(layer.parameters_before for layer in layers.values())
        self.parameters_after = others + sum(layer.parameters_after for layer in layers.values())
        self.flops_before = sum(layer.flops_before for layer in layers.values())
        self.flops_after = sum(layer.flops_after for layer in layers.values())
        self._originals = originals

    def __call__(self) -> None:
        """Put the original layers back; a second call does nothing."""
        while self._originals:
            parent, name, module = self._originals.pop()
            setattr(parent, name, module)

    def __repr__(self) -> str:
        replaced = sum(layer.rank < layer.features for layer in self.layers.values())
        return (
            f"Compression({replaced} of {len(self.layers)} layers replaced,"
            f" parameters {self.parameters_before} -> {self.parameters_after},"
            f" FLOPs {self.flops_before} -> {self.flops_after})"
        )


class LowRank(nn.Sequential):
    """``encode`` into few directions and ``decode`` from them, in the place of one linear or convolutional layer.

    Networks that take a layer's weights rather than call it (Mamba, PyTorch's own transformer in evaluation mode) find
    those of the layer that both stand for, made anew each time: the same values, and nothing saved there.
    """

    def __init__(self, encode: Any, decode: Any) -> None:
        super().__init__(OrderedDict(encode=encode, decode=decode))

    @property
    def weight(self) -> Tensor:
        """The weight (out, in, …) of both layers in one."""
        encode: Any = self._modules["encode"]
        decode: Any = self._modules["decode"]
        product: Tensor = torch.tensordot(decode.weight.flatten(1), encode.weight, 1)
        return product

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            behind = name == "bias" or name.startswith("out_")
            part = self._modules.get("decode" if behind else "encode")
            if part is None or name.startswith("_") or not hasattr(part, name):
                raise
            return getattr(part, name)


def compress(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    ranks: int | Mapping[str, int] | None = None,
    delta: float | None = None,
    keep: float | None = None,
    basis: Literal["svcca", "pca"] = "svcca",
    reference: nn.Module | None = None,
    layers: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    max_batches: int | None = None,
    device: torch.device | str | None = None,
    forward: Forward | None = None,
) -> Compression:
    """Replace layers of ``model`` by two thinner ones each, and return what changed; call it to undo that.

    A linear or convolutional layer's output is restricted to the directions that it uses on ``batches``: into these
    directions and back, ``W x ≈ decode (encode W) x``, the first of the two with the layer's kernel, stride and
    padding, the second pointwise. A layer whose two parts would have no fewer parameters is left alone, as are grouped
    and transposed convolutions. Modes, devices and precision stay, and nothing is drawn at random.

    Args:
        model: is changed in place.
        batches: inputs, as for :func:`measure_saturation`; several times as many samples as features.
        ranks: directions to keep, for all layers or by name.
        delta: or the share of variance that they hold.
        keep: or the share of features that they number. One of the three is needed.
        basis: ``"pca"`` takes the directions of largest variance, ``"svcca"`` those that correlate most with
            ``reference``, then those of largest variance. With ``delta`` the choice matters less, most of the variance
            being kept either way.
        reference: a network with layers of the same names, such as one trained from another seed; None takes the
            model's own output instead.
        layers: names or globs, None for all; see :func:`select_layers`.
        exclude: names or globs to leave alone, such as the output layer.
        max_batches: batches to use.
        device: where to run.
        forward: ``forward(model, batch)`` for models that take more than one tensor.

    Raises:
        ValueError: for none or several of ``ranks``, ``delta`` and ``keep``, values out of range, unknown layers or a
            ``reference`` without them, or a model that is itself a single layer.

    Source: Raghu et al., *SVCCA*, section 4.4, which projects a layer's input; projecting its output keeps what is
    measured, and leaves the next layer alone.

    >>> model = nn.Sequential(nn.Linear(20, 50), nn.ReLU(), nn.Linear(50, 2))
    >>> undo = compress(model, torch.randn(5, 100, 20), ranks={"0": 4}, basis="pca", layers=["0"])
    >>> undo.parameters_before, undo.parameters_after
    (1152, 432)
    """
    check_choice("basis", basis, ("svcca", "pca"))
    chosen = {
        name: module
        for name, module in select_layers(model, layers, exclude).items()
        if isinstance(module, Layer) and getattr(module, "groups", 1) == 1
    }
    if model in chosen.values():
        raise ValueError("Expected a model that contains its layers, got a single layer.")
    size = Size(ranks, delta, keep).check(chosen)
    if not chosen:
        raise ValueError("Expected linear or ungrouped convolutional layers to compress, got none.")
    kept = list(islice(batches, max_batches))
    data = Batches(kept, device=device, forward=forward)
    moments = output_moments(model, data, layers=list(chosen), reference=reference, joint=basis == "svcca")
    positions = _positions(model, data, list(moments))
    found: dict[str, Replaced] = {}
    originals: list[tuple[nn.Module, str, nn.Module]] = []
    others = sum(p.numel() for p in model.parameters())
    for name, moment in moments.items():
        layer, features = chosen[name], len(moment.mean)
        rank = size.of(name, moment.pair.xx)
        after: nn.Module = layer
        if _pays(layer, rank):
            after = thinner(layer, subspace(moment, rank, basis=basis))
            originals += _replace(model, layer, after)
        weights = [sum(p.numel() for p in module.parameters() if p.ndim > 1) for module in (layer, after)]
        flops = [2 * positions[name] * count for count in weights]
        found[name] = Replaced(features, features if after is layer else rank, _count(layer), _count(after), *flops)
        others -= found[name].parameters_before
    return Compression(found, others, originals)


def thinner(layer: Layer, space: Subspace) -> LowRank:
    """Return two layers that put out what ``layer`` does, restricted to ``space``."""
    weight = layer.weight.detach().double()
    like: dict[str, Any] = {"device": weight.device, "dtype": layer.weight.dtype}
    encode, decode, centre = (part.to(weight.device) for part in (space.encode, space.decode, space.centre))
    bias = torch.zeros_like(centre) if layer.bias is None else layer.bias.detach().double()
    if isinstance(layer, nn.Linear):
        first = _empty(nn.Linear, layer.in_features, space.rank, bias=False, **like)
        second = _empty(nn.Linear, space.rank, layer.out_features, **like)
    else:
        kind = next(kind for kind in (nn.Conv1d, nn.Conv2d, nn.Conv3d) if isinstance(layer, kind))
        kernel = {key: getattr(layer, key) for key in ("kernel_size", "stride", "padding", "dilation", "padding_mode")}
        first = _empty(kind, layer.in_channels, space.rank, bias=False, **kernel, **like)
        second = _empty(kind, space.rank, layer.out_channels, 1, **like)
    with torch.no_grad():
        first.weight.copy_(torch.tensordot(encode.T, weight, 1))
        second.weight.copy_(decode.T.reshape(second.weight.shape))
        second.bias.copy_(centre + (bias - centre) @ encode @ decode)
    pair = LowRank(first, second).train(layer.training)
    return pair.requires_grad_(layer.weight.requires_grad)


def _empty(kind: type[nn.Module], *args: Any, device: torch.device, **options: Any) -> Any:
    # Nothing random is drawn for weights that are overwritten at once.
    return kind(*args, device="meta", **options).to_empty(device=device)


def _pays(layer: Layer, rank: int) -> bool:
    """Return whether two layers of ``rank`` have fewer weights than ``layer``, and so less work at every position."""
    out, *inside = layer.weight.shape
    return rank * (math.prod(inside) + out) < out * math.prod(inside)


def _positions(model: nn.Module, batches: Batches, layers: Sequence[str]) -> dict[str, int]:
    """Return at how many positions of a sample each layer's weights are applied."""
    rows: dict[str, list[int]] = {name: [0, 0] for name in layers}
    with Batches(batches.source, 1, batches.device).over(model) as each:
        batch, (home,) = next(each)
        poolings: tuple[Pooling, Pooling] = ("positions", "mean")
        for slot, pooling in enumerate(poolings):

            def record(name: str, output: Tensor, slot: int = slot) -> None:
                rows[name][slot] += len(output)

            with capture(model, record, layers=layers, pooling=pooling):
                batches.run(model, batch, home)
    return {name: max(1, round(positions / max(samples, 1))) for name, (positions, samples) in rows.items()}


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> list[tuple[nn.Module, str, nn.Module]]:
    """Put ``new`` wherever ``old`` is and return how to go back."""
    # A layer that is used twice has two paths.
    paths = [path for path, module in model.named_modules(remove_duplicate=False) if path and module is old]
    places = [(model.get_submodule(path.rpartition(".")[0]), path.rpartition(".")[2]) for path in paths]
    for parent, name in places:
        setattr(parent, name, new)
    return [(parent, name, old) for parent, name in places]


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
