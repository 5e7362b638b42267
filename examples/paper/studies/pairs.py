"""Two networks from different seeds: the directions that they share, the units that they share (SVCCA; Li et al.)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_saturation import compare_representations, compress, match_networks, project_outputs, select_layers
from paper.measure import Subject, inner_layers
from paper.settings import Settings
from paper.studies.bench import Bench
from paper.task import Batch, scores

BASES = ("svcca", "pca", "active", "random")
KEPT = (0.5, 0.35)
MOST_UNITS = 128


def answer(bench: Bench, of: tuple[Settings, ...]) -> None:
    """Compare two seeds of one run: similarity, directions and neurons, compression, units."""
    first, second = (bench.trained(each) for each in of)
    bench.part("similarity", partial(similarity, first, second))
    test = bench.test(of[0])
    bench.part("whole", lambda: scores(first.trained, test, of[0]))
    layers = _shown(first.trained)
    bench.part("directions", lambda: {name: directions(first, second, test, name) for name in layers})
    bench.part("distributed", lambda: {name: distributed(first, second, test, name) for name in layers[1:]})
    bench.part("compression", partial(compression, first, second, test))
    few = inner_layers(first.trained)[: 3 if bench.scale == "small" else None]
    bench.part("units", partial(units, first, second, few))


def similarity(first: Subject, second: Subject) -> dict[str, Any]:
    """Return each layer's similarity with itself in the other network, trained and as drawn, and the whole matrix."""
    options = {"layers": inner_layers(first.trained), "progress": False}
    found: dict[str, Any] = {}
    for method in ("svcca", "pwcca", "cka"):
        for weights in ("trained", "untrained"):
            models = getattr(first, weights), getattr(second, weights)
            matrix = compare_representations(*models, first.probes, method=method, **options)
            found[f"{weights} {method}"] = matrix.diagonal
            if method == "svcca" and weights == "trained":
                found["layers"], found["matrix"] = list(matrix.rows), matrix.values.tolist()
    return found


def directions(first: Subject, second: Subject, test: list[Batch], layer: str) -> dict[str, Any]:
    """Return accuracies where a layer keeps k directions or neurons, of each kind (figure 2a)."""
    features = _features(first.trained, layer)
    counts = sorted({min(k, features) for k in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)})
    found: dict[str, Any] = {"features": features, "counts": counts}
    for basis in BASES:
        found[basis] = []
        for k in counts:
            values = []
            for seed in range(3 if basis == "random" else 1):
                options = {"ranks": k, "basis": basis, "layers": [layer], "seed": seed, "reference": second.trained}
                with project_outputs(first.trained, first.probes, **options):
                    values.append(scores(first.trained, test, first.settings)["accuracy"])
            found[basis].append(sum(values) / len(values))
    return found


def distributed(first: Subject, second: Subject, test: list[Batch], layer: str) -> dict[str, Any]:
    """Return accuracies where k SVCCA directions are put on m neurons, those that matter most to them (figure 2b)."""
    features = _features(first.trained, layer)
    counts = [k for k in (1, 2, 4, 8, 16, 32, 64) if k <= features // 2]
    neurons = sorted({max(1, features // 8), features // 4, features // 2, features})
    found: dict[str, Any] = {"features": features, "counts": counts, "neurons": {}}
    for m in neurons:
        found["neurons"][m] = []
        for k in counts:
            options = {"ranks": k, "basis": "svcca", "layers": [layer], "reference": second.trained}
            with _busiest(first, layer, m, options):
                found["neurons"][m].append(scores(first.trained, test, first.settings)["accuracy"])
    return found


def compression(first: Subject, second: Subject, test: list[Batch]) -> dict[str, Any]:
    """Return accuracies where the top 1, 2, … layers keep a share of their features, by basis (section 4.4)."""
    inner = inner_layers(first.trained)
    found: dict[str, Any] = {"layers": inner}
    for basis in ("svcca", "pca"):
        for kept in KEPT:
            rows = []
            for top in range(1, len(inner) + 1):
                options = {"keep": kept, "basis": basis, "layers": inner[-top:], "reference": second.trained}
                undo = compress(first.trained, first.probes, **options)
                accuracy = scores(first.trained, test, first.settings)["accuracy"]
                rows.append([accuracy, undo.flops_after / undo.flops_before, undo.parameters_after])
                undo()
            found[f"{basis} {kept:g}"] = rows
    return found


def units(first: Subject, second: Subject, names: list[str]) -> dict[str, Any]:
    """Return how units correspond: matchings, and sparse predictions with each penalty (table 1).

    Partners and predictions are found on one half of the test samples and judged on the other.
    """
    layers = [name for name in names if _features(first.trained, name) <= MOST_UNITS]
    learning = match_networks(first.trained, second.trained, first.test, layers=layers, held_out=True, progress=False)
    found: dict[str, Any] = {"layers": learning.to_records()}
    for name in layers[:2]:
        match = learning.layers[name]
        found[f"pairs of {name}"] = match.between.diagonal().tolist(), match.bipartite.y_correlation.tolist()
    return found


@contextmanager
def _busiest(of: Subject, layer: str, count: int, options: dict[str, Any]) -> Iterator[None]:
    """Project a layer, then keep the ``count`` neurons of largest variance in the projection; the others rest."""
    module = of.trained.get_submodule(layer)
    with project_outputs(of.trained, of.probes, **options):
        sums: list[Tensor] = []
        handle = module.register_forward_hook(lambda _, __, output: sums.append(_moments(output)))
        scores(of.trained, of.probes[:8], of.settings)
        handle.remove()
        total = torch.stack(sums).sum(0)
        mean = total[1] / total[0]
        variance = total[2] / total[0] - mean.square()
        resting = torch.ones(len(mean), dtype=torch.bool)
        resting[variance.argsort(descending=True)[:count]] = False
        handle = module.register_forward_hook(_resting(resting, mean.float()))
        try:
            yield
        finally:
            handle.remove()


def _moments(output: Tensor) -> Tensor:
    rows = output.movedim(1, -1).flatten(0, -2).double()
    return torch.stack([torch.full_like(rows[0], len(rows)), rows.sum(0), rows.square().sum(0)])


def _resting(resting: Tensor, mean: Tensor) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    def rest(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        return torch.where(resting, mean, output.movedim(1, -1)).movedim(-1, 1)

    return rest


def _shown(model: nn.Module) -> list[str]:
    inner = inner_layers(model)
    return [inner[i] for i in sorted({0, len(inner) // 2, len(inner) - 1})]


def _features(model: nn.Module, layer: str) -> int:
    return len(select_layers(model)[layer].weight)
