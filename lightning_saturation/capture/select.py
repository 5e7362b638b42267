"""Which layers of a model to look at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from torch import nn
from torchmetrics import Metric

from lightning_saturation.capture.pooling import Layout

_CONVOLUTIONS = {
    1: (nn.Conv1d, nn.ConvTranspose1d),
    2: (nn.Conv2d, nn.ConvTranspose2d),
    3: (nn.Conv3d, nn.ConvTranspose3d),
}
_TRACKED = (nn.Linear, *(kind for kinds in _CONVOLUTIONS.values() for kind in kinds), nn.RNNBase, nn.MultiheadAttention)
# Wrappers put these into the names of everything below them.
_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


def select_layers(
    model: nn.Module, layers: Sequence[str] | None = None, exclude: Sequence[str] = ()
) -> dict[str, nn.Module]:
    """Return the layers of ``model`` to track by name, in the order of ``named_modules()``.

    By default these are all linear, convolutional (1–3d, transposed too), recurrent and multi-head attention layers.
    ``layers`` picks instead: an exact name picks any module, a glob such as ``"encoder.*"`` picks layers of these types
    and embeddings below it or, if there are none of them, every module that it matches. ``exclude`` takes names or
    globs out again, with everything below them. Names are those of ``named_modules()`` without what ``torch.compile``,
    FSDP and checkpoint wrappers add; a model that is itself one layer is called by its class. Layers inside a
    multi-head attention, whose hooks never fire, and inside a ``torchmetrics.Metric`` are not offered.

    Raises ``ValueError`` for a name or glob without a match, with similar names, and when nothing is left.
    """
    modules = dict(_named_modules(model))
    if layers is None:
        chosen = {name for name, module in modules.items() if isinstance(module, _TRACKED)}
    else:
        chosen = {name for pattern in _patterns(layers, "layers") for name in _match(pattern, modules, "layers")}
    for pattern in _patterns(exclude, "exclude"):
        for out in _match(pattern, modules, "exclude", every=True):
            chosen -= {name for name in chosen if name == out or name.startswith(f"{out}.")}
    if not chosen:
        kinds = sorted({type(module).__name__ for module in modules.values()})
        raise ValueError(
            "Expected a model with linear, convolutional, recurrent or attention layers after `layers` and `exclude`,"
            f" got none among modules of the types {kinds}. Name others with `layers`."
        )
    return {name: module for name, module in modules.items() if name in chosen}


def layout_of(module: nn.Module, dimensions: int) -> Layout:
    """Return the layout of the output of ``module`` when it has so many ``dimensions``.

    Modules of other types are taken as channels-first from four dimensions on (images), else as features-last.
    """
    for rank, kinds in _CONVOLUTIONS.items():
        if isinstance(module, kinds):
            return Layout(features=-(rank + 1), unbatched=rank + 1)
    if isinstance(module, nn.RNNBase | nn.MultiheadAttention):
        return Layout(batch=0 if module.batch_first else 1, unbatched=2)
    if isinstance(module, nn.Linear | nn.Embedding) or dimensions < 4:
        return Layout()
    return Layout(features=1 - dimensions)


def width_of(module: nn.Module) -> int | None:
    """Return the number of features that ``module`` says it puts out, or None where it does not say."""
    if isinstance(module, nn.Linear):
        return module.out_features
    if isinstance(module, _TRACKED) and not isinstance(module, nn.RNNBase | nn.MultiheadAttention):
        return int(module.out_channels)  # type: ignore[arg-type]
    return None


def _named_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    hidden: set[int] = set()
    for name, module in model.named_modules():
        if id(module) in hidden or isinstance(module, nn.MultiheadAttention | Metric):
            hidden.update(map(id, module.children()))
        if id(module) in hidden or isinstance(module, Metric):
            continue
        clean = _clean(name)
        # A wrapper and what it wraps share a clean name; the inner module, which runs either way, stands for both.
        yield (clean or type(module).__name__), module


def _clean(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _patterns(patterns: Sequence[str], argument: str) -> list[str]:
    """Return ``patterns`` as a list of names; one string stands for itself, not for its letters."""
    listed = [patterns] if isinstance(patterns, str) else list(patterns)
    if not all(isinstance(pattern, str) for pattern in listed):
        raise ValueError(f"Expected `{argument}` to hold names or globs of modules, got {patterns!r}.")
    return [_clean(pattern) for pattern in listed]


def _match(pattern: str, modules: dict[str, nn.Module], argument: str, *, every: bool = False) -> Iterable[str]:
    if pattern in modules:
        return [pattern]
    matched = [name for name in modules if fnmatchcase(name, pattern)]
    if not matched:
        near = get_close_matches(pattern, modules, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(map(repr, near))}?" if near else f"there are {list(modules)[:10]} and more."
        raise ValueError(f"Expected `{argument}` to name modules of the model, but nothing matches {pattern!r}; {hint}")
    supported = [name for name in matched if isinstance(modules[name], (*_TRACKED, nn.Embedding))]
    return matched if every or not supported else supported
