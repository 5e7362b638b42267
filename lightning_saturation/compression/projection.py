"""A network whose layers may only say what lies in a few directions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, get_args

import torch
from torch import Tensor, nn

from lightning_saturation.arguments import check_choice, check_count
from lightning_saturation.capture.compiled import forget_compiled
from lightning_saturation.capture.evaluation import Batches, Forward
from lightning_saturation.capture.features import Neighbour, features_dim
from lightning_saturation.capture.kinds import kind_of
from lightning_saturation.capture.select import layout_of, select_layers
from lightning_saturation.compression.subspace import Basis, Size, Subspace, onto_neurons, output_moments, subspace


@contextmanager
def project_outputs(
    model: nn.Module,
    batches: Iterable[Any],
    delta: float | None = None,
    *,
    ranks: int | Mapping[str, int] | None = None,
    keep: float | None = None,
    basis: Basis = "pca",
    neurons: int | None = None,
    reference: nn.Module | None = None,
    layers: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    max_batches: int | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    forward: Forward | None = None,
) -> Iterator[dict[str, int]]:
    """Return a context in which each layer's output is restricted to its top directions; it gives their numbers.

    That is how one sees that the counted directions carry the task: accuracy at ``delta=0.99`` is close to the full
    network's. The directions are found on ``batches`` with the network as it is, all layers at once, before the context
    begins. Parameters do not change, gradients pass through, and nothing is left behind.

    Args:
        model: a network of linear and convolutional layers.
        batches: inputs, as for :func:`measure_saturation`.
        delta: share of variance to keep.
        ranks: or the number of directions, for all layers or by name.
        keep: or the share of features that they number. One of the three is needed.
        basis: ``"pca"``, or ``"svcca"`` for the directions that correlate most with ``reference`` (None: with the
            model's output); ``"active"`` for the neurons of largest mean square output and ``"random"`` for neurons
            drawn from ``seed``, which hold the others at their mean.
        neurons: hold all but so many neurons at their mean after that: those of which the directions predict the
            largest share. How many it takes says how far the directions are spread over neurons.
        reference: a network with layers of the same names.
        layers: names or globs, None for all; see :func:`select_layers`.
        exclude: names or globs to leave alone.
        max_batches: batches to use.
        seed: for ``"random"``; the global generator is left alone.
        device: where to run ``batches``.
        forward: ``forward(model, batch)`` for models that take more than one tensor.

    Raises:
        ValueError: as :func:`compress` does.

    Source: Raghu et al., *SVCCA*, section 2.1, figures 2 (2b for ``neurons``) and 3; Shenk et al., *Spectral Analysis
    of Latent Representations*, section 3.2.

    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> with project_outputs(model, torch.randn(5, 50, 4), 0.99) as ranks:
    ...     list(ranks)
    ['0', '2']
    """
    check_choice("basis", basis, get_args(Basis))
    check_count("neurons", neurons, optional=True)
    chosen = {
        name: module
        for name, module in select_layers(model, layers, exclude).items()
        if not isinstance(module, nn.RNNBase | nn.MultiheadAttention)
    }
    size = Size(ranks, delta, keep).check(chosen)
    data = Batches(batches, max_batches, device, forward)
    moments = output_moments(model, data, layers=list(chosen), reference=reference, joint=basis == "svcca")
    spaces = {
        name: subspace(moment, size.of(name, moment.pair.xx), basis=basis, seed=seed)
        for name, moment in moments.items()
    }
    if neurons is not None:
        spaces = {name: onto_neurons(space, moments[name], neurons) for name, space in spaces.items()}
    handles = []
    try:
        for name, space in spaces.items():
            handles.append(chosen[name].register_forward_hook(_projecting(space)))
        yield {name: space.rank for name, space in spaces.items()}
    finally:
        for handle in handles:
            handle.remove()
        forget_compiled(model)


def _projecting(space: Subspace) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    def project(module: nn.Module, _: Any, output: Tensor) -> Tensor:
        if kind_of(module) is None:
            features = features_dim(module, output.shape, Neighbour((len(space.centre),), -1))
        else:
            features = layout_of(module, output.ndim).features
        centre, encode, decode = (part.to(output) for part in space)
        rows = output.movedim(features, -1) - centre
        return (centre + rows @ encode @ decode).movedim(-1, features)

    return project
