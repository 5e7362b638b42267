"""Which layers of a model to look at, which of those that ran are output layers, and what else a user may choose."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torchmetrics import Metric

from lightning_saturation.arguments import check_patterns
from lightning_saturation.capture import compat
from lightning_saturation.capture.kinds import Kind, holds_its_layers, kind_of
from lightning_saturation.capture.masks import Mask, check_mask
from lightning_saturation.capture.pooling import Layout, Pooling, check_pooling

# Wrappers put these into the names of everything below them.
_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")


def select_layers(
    model: nn.Module, layers: Sequence[str] | None = None, exclude: Sequence[str] = ()
) -> dict[str, nn.Module]:
    """Return the layers of ``model`` to track by name, in the order of ``named_modules()``.

    By default these are all linear, convolutional (1–3d, transposed too), recurrent and multi-head attention layers,
    recurrent cells, the ``Conv1D`` of transformers, the layers of PyG, experts and routers of mixtures, and what
    :func:`register_layer` adds. ``layers`` picks instead: an exact name picks any module, a glob such as
    ``"encoder.*"`` picks layers of these types and embeddings below it or, if there are none of them, every module that
    it matches. ``exclude`` takes names or globs out again, with everything below them. Names are those of
    ``named_modules()`` without what ``torch.compile``, FSDP and checkpoint wrappers add; a model that is itself one
    layer is called by its class. Layers inside a multi-head attention, whose hooks never fire, inside a graph
    convolution and inside a ``torchmetrics.Metric`` are not offered.

    Raises ``ValueError`` for a name or glob without a match, with similar names, and when nothing is left.
    """
    modules = dict(offered_modules(model))
    if layers is None:
        chosen = {name for name, module in modules.items() if (kind := kind_of(module)) is not None and kind.by_default}
    else:
        chosen = {name for pattern in _patterns(layers, "layers") for name in _match(pattern, modules, "layers")}
    for pattern in _patterns(exclude, "exclude"):
        for out in _match(pattern, modules, "exclude", every=True):
            chosen -= {name for name in chosen if name == out or name.startswith(f"{out}.")}
    if not chosen:
        kinds = sorted({type(module).__name__ for module in modules.values()})
        reason = compat.why_opaque(model)
        if reason is not None:
            raise ValueError(f"Expected a model whose layers run hooks, got {type(model).__name__}: {reason}.")
        raise ValueError(
            "Expected a model with linear, convolutional, recurrent or attention layers after `layers` and `exclude`,"
            f" got none among modules of the types {kinds}. Name others with `layers`, or tell of their types with"
            " `register_layer`."
        )
    return {name: module for name, module in modules.items() if name in chosen}


def layout_of(module: nn.Module, dimensions: int) -> Layout:
    """Return the layout of the output of ``module`` when it has so many ``dimensions``.

    What is of no known kind is taken for channels-first from four dimensions on, as images are.
    """
    kind = kind_of(module) or Kind(features_dim=1 if dimensions > 3 else -1)
    return kind.layout(module, dimensions)


def offered_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules of ``model`` that can be tracked, by the names that they have here."""
    if not isinstance(model, nn.Module):
        what = f"the class {model.__name__}" if isinstance(model, type) else f"a {type(model).__name__}"
        raise TypeError(f"Expected `model` to be a torch.nn.Module, got {what}.")
    hidden: set[int] = set()
    parallel: list[str] = []
    for name, module in model.named_modules():
        if isinstance(module, DistributedDataParallel):
            parallel.append(f"{name}.module".lstrip("."))
        if id(module) in hidden or isinstance(module, Metric) or holds_its_layers(module):
            hidden.update(map(id, module.children()))
        if id(module) in hidden or isinstance(module, Metric):
            continue
        for inner in parallel:
            if f"{name}.".startswith(f"{inner}."):
                name = f"{inner.removesuffix('module')}{name[len(inner) + 1 :]}".rstrip(".")
        clean = _clean(name)
        # A wrapper and what it wraps share a clean name; the inner module, which runs either way, stands for both.
        yield (clean or type(module).__name__), module


def check_output_layers(
    names: Sequence[str], output_layers: Sequence[str] | None, *, argument: str = "output_layers"
) -> None:
    """Raise a ``ValueError`` where a name or glob in ``output_layers`` matches none of the tracked ``names``."""
    for pattern in _listed(output_layers or ()):
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(f"Expected `{argument}` to name tracked layers, among {list(names)}, got {pattern!r}.")


def choose_output_layers(
    ran: Sequence[str], output_layers: Sequence[str] | None, found: Sequence[str] | None = None
) -> tuple[str, ...]:
    """Return which of the layers that ``ran``, in that order, are left out of the average.

    With None these are the ones ``found`` to feed no other layer or, where nobody looked, the last one; none where no
    layer would be left.
    """
    if output_layers is None:
        ends = tuple(ran[-1:]) if found is None else tuple(name for name in ran if name in found)
        return ends if len(ends) < len(ran) else ()
    return tuple(name for name in ran if any(fnmatchcase(name, pattern) for pattern in _listed(output_layers)))


def _listed(patterns: Sequence[str]) -> Sequence[str]:
    return [patterns] if isinstance(patterns, str) else patterns


def _clean(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _patterns(patterns: Sequence[str], argument: str) -> list[str]:
    """Return ``patterns`` as a list of names; one string stands for itself, not for its letters."""
    listed = list(_listed(patterns))
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
    supported = [name for name in matched if kind_of(modules[name]) is not None]
    return matched if every or not supported else supported


@dataclass(frozen=True)
class CaptureOptions:
    """``layers`` and ``exclude`` of :func:`select_layers`, ``pooling`` (None for outputs as they come) and ``mask``.

    Raises ``TypeError`` or ``ValueError`` for what is none of these, whatever the model.
    """

    layers: Sequence[str] | None = None
    exclude: Sequence[str] = ()
    pooling: Pooling | None = "mean"
    mask: Mask = None

    def __post_init__(self) -> None:
        check_patterns("layers", self.layers)
        check_patterns("exclude", self.exclude, optional=False)
        if self.pooling is not None:
            check_pooling(self.pooling)
        check_mask(self.mask, self.pooling)

    def select(self, model: nn.Module) -> dict[str, nn.Module]:
        """Return the layers of ``model`` to watch, by name."""
        return select_layers(model, self.layers, self.exclude)
