"""What is true of a network, found by interventions: it shares no code with the package.

Which entries of a layer's output belong to which sample is seen by changing one sample of a batch; which layers feed
which, by adding noise to what one puts out. Slow, and certain.
"""

from collections.abc import Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tests.zoo.network import SAMPLES, Network

_LAST = {
    "Linear",
    "NonDynamicallyQuantizableLinear",
    "Bilinear",
    "LSTM",
    "GRU",
    "RNN",
    "MultiheadAttention",
    "LSTMCell",
    "GRUCell",
    "RNNCell",
    "HeteroLinear",
}
_CHANNELS = {f"Conv{kind}{n}d": n for kind in ("", "Transpose") for n in (1, 2, 3)}


class Layer(NamedTuple):
    """What its rows are (samples, positions or none), how many of how many features, and their spectrum."""

    rows: str
    samples: int
    features: int
    eigenvalues: np.ndarray


class Truth(NamedTuple):
    """Layers by name, and by name those that its output reaches."""

    layers: dict[str, Layer]
    reached: dict[str, set[str]]

    @property
    def outputs(self) -> set[str]:
        """The layers with data that reach no other."""
        return {
            name for name, others in self.reached.items() if not others - {name} and self.layers[name].rows != "none"
        }


def truth(network: Network) -> Truth:
    """Return what is true of ``network``, in double precision and evaluation mode."""
    layers = known_layers(network.model)
    runs = [outputs(network, layers, batch) for batch in network.batches]
    base = runs[0]
    changed = [outputs(network, layers, changed_batch(network.batches[0], i, network.axis)) for i in range(SAMPLES)]
    found = {name: _layer(name, layers[name], runs, [other[name] for other in changed]) for name in base}
    reached = {}
    for name in base:
        with noisy(layers[name]):
            other = outputs(network, layers, network.batches[0])
        reached[name] = {n for n in base if _differs(base[n], other[n])} - {name}
    return Truth(found, reached)


def known_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the modules whose class is one of those that the package says it knows."""
    found, inside = {}, set()
    for name, module in model.named_modules():
        kinds = {base.__name__ for base in type(module).__mro__ if base.__module__.startswith("torch")}
        if id(module) in inside:
            continue
        own = dict(module.named_parameters(recurse=False))
        experts = type(module).__name__.endswith("Experts") and any(p.ndim == 3 for p in own.values())
        router = type(module).__name__.endswith("Router") and "weight" in own and own["weight"].ndim == 2
        graph = "MessagePassing" in kinds and _owns_weights(module)
        named = type(module).__name__ in ("Conv1D", "XLNetRelativeAttention")
        hf = named and type(module).__module__.startswith("transformers")
        if graph or "MultiheadAttention" in kinds:
            inside.update(id(part) for part in module.modules() if part is not module)
        if graph or experts or router or hf or kinds & (_LAST | set(_CHANNELS)):
            found[name or type(module).__name__] = module
    return found


def _owns_weights(module: nn.Module) -> bool:
    return not any(isinstance(part, nn.Linear) for part in module.modules()) and any(
        p.ndim > 1 for p in module.parameters()
    )


def outputs(network: Network, layers: Mapping[str, nn.Module], batch: Any) -> dict[str, list[Tensor]]:
    """Return what each layer put out for ``batch``, call by call."""
    found: dict[str, list[Tensor]] = {}

    def keep(name: str, output: Any) -> None:
        while not isinstance(output, Tensor):
            output = output[0]
        found.setdefault(name, []).append(output.detach().clone())

    handles = [m.register_forward_hook(lambda _, __, out, n=n: keep(n, out)) for n, m in layers.items()]
    torch.manual_seed(0)
    with torch.no_grad():
        run(network, batch)
    for handle in handles:
        handle.remove()
    return found


def run(network: Network, batch: Any) -> Any:
    """Run the network on ``batch``."""
    if network.forward is not None:
        return network.forward(network.model, batch)
    return network.model(**batch) if isinstance(batch, Mapping) else network.model(batch)


def changed_batch(batch: Any, index: int, axis: int) -> Any:
    """Return ``batch`` with other values in sample number ``index``."""
    if isinstance(batch, Mapping):
        return {key: changed_batch(value, index, axis) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        return type(batch)(changed_batch(value, index, axis) for value in batch)
    if not isinstance(batch, Tensor) or batch.ndim <= axis or batch.shape[axis] != SAMPLES or batch.dtype == torch.bool:
        return batch
    other = batch.clone()
    at = (slice(None),) * axis + (index,)
    if batch.is_floating_point():
        other[at] = torch.randn_like(other[at]) * batch.std()
    else:
        low, high = int(batch.min()), int(batch.max())
        other[at] = low + (other[at] - low + 1) % (high - low + 1)
    return other


@contextmanager
def noisy(module: nn.Module):
    """Add noise to what ``module`` puts out."""

    def add(_: Any, __: Any, output: Any) -> Any:
        if isinstance(output, Tensor):
            real = output.is_floating_point()
            return output + 1e-3 * torch.randn_like(output) * output.abs().mean().clamp(min=1) if real else output
        return tuple(add(_, __, each) for each in output) if isinstance(output, tuple | list) else output

    handle = module.register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


def _layer(name: str, module: nn.Module, runs: list[dict[str, list[Tensor]]], changed: list[list[Tensor]]) -> Layer:
    first = runs[0][name]
    moves = [
        [_moved(one, other[call]) for call, one in enumerate(first)] for other in changed if len(other) == len(first)
    ]
    constant = not any(bool(mask.any()) for masks in moves for mask in masks)
    rows = []
    for kept in runs:
        for call, output in enumerate(kept[name]):
            features = _features(module, output.ndim)
            samples = _samples_dim(output, features, [masks[call] for masks in moves] if call < len(first) else [])
            flat = output.movedim((samples, features), (0, -1)) if output.ndim > 1 else output[None]
            rows.append(flat.reshape(flat.shape[0], -1, flat.shape[-1]).mean(1).double().numpy())
    in_batch = sum(len(each) for each in rows[: len(first)])
    everything = np.concatenate(rows)
    singular = np.linalg.svd(everything - everything.mean(0), compute_uv=False)
    eigenvalues = np.zeros(everything.shape[1])
    eigenvalues[: len(singular)] = (singular**2 / max(len(everything) - 1, 1))[: len(eigenvalues)]
    kind = "none" if constant or in_batch == 1 else "samples" if in_batch <= SAMPLES else "positions"
    return Layer(kind, len(everything), everything.shape[1], eigenvalues)


def _features(module: nn.Module, dimensions: int) -> int:
    spatial = next((_CHANNELS[base.__name__] for base in type(module).__mro__ if base.__name__ in _CHANNELS), 0)
    return dimensions - 1 - spatial


def _samples_dim(output: Tensor, features: int, moves: list[Tensor]) -> int:
    """Return the dimension in which a change of one sample reaches some entries and not others."""
    for dim in range(output.ndim):
        rest = [d for d in range(output.ndim) if d != dim]
        reached = [mask.any(dim=tuple(rest)) if rest else mask for mask in moves]
        if dim != features and any(bool(each.any()) and not bool(each.all()) for each in reached):
            return dim
    return 0


def _moved(one: Tensor, other: Tensor) -> Tensor:
    if one.shape != other.shape:
        return torch.ones_like(one, dtype=torch.bool)
    return (one - other).abs() > 1e-12 * one.abs().max().clamp(min=1e-30)


def _differs(base: list[Tensor], other: list[Tensor]) -> bool:
    return len(base) != len(other) or any(bool(_moved(a, b).any()) for a, b in zip(base, other, strict=True))
