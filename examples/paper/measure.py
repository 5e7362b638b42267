"""What is measured on a trained network: saturation, dimension, spectra of operators, accuracy in fewer directions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_saturation import (
    SaturationReport,
    compress,
    measure_dimension,
    measure_saturation,
    measure_spectrum,
    project_outputs,
    select_layers,
)
from lightning_saturation.compression.compress import Replaced
from paper.networks import checkpoints
from paper.record import STATISTICS, rounded
from paper.settings import Settings
from paper.task import Batch, scores

DELTAS = (0.9, 0.95, 0.99, 0.999)
EIGENVALUES = 64


@dataclass
class Subject:
    """A network, trained and as it was drawn, with the batches on which it is measured.

    ``probes`` are training samples as they lie, without crops and flips, so that every measurement sees the same.
    """

    settings: Settings
    trained: nn.Module
    untrained: nn.Module
    probes: list[Batch]
    test: Iterable[Batch]

    @property
    def pooling(self) -> str:
        """What a row is: an image, by averages over positions (equation 3), or a character."""
        return "positions" if self.settings.task == "predict" else "mean"


def saturation(of: Subject) -> dict[str, Any]:
    """Return saturation on training and test samples, trained and untrained, by either pooling; test eigenvalues."""
    found: dict[str, Any] = {}
    for weights, model in (("trained", of.trained), ("untrained", of.untrained)):
        for stage, batches in (("train", of.probes), ("test", of.test)):
            report = measure_saturation(model, batches, pooling=of.pooling, progress=False)
            found[f"{weights} {stage} {of.pooling}"] = _statistics(report)
            if stage == "test":
                found[f"{weights} eigenvalues"] = {
                    name: rounded(layer.eigenvalues[:EIGENVALUES].tolist(), 4)
                    for name, layer in report.layers.items()
                    if layer.eigenvalues is not None
                }
    if of.pooling == "mean":
        report = measure_saturation(of.trained, of.test, pooling="positions", progress=False)
        found["trained test positions"] = _statistics(report)
    return found


def dimension(of: Subject) -> dict[str, Any]:
    """Return TwoNN and PCA dimension by layer, also with random weights, with the scales of every layer."""
    options = {"layers": checkpoints(of.trained), "samples": of.settings.samples, "progress": False}
    if of.settings.task == "predict":  # rows are sequences; their input is integers, which have no dimension
        options["pooling"] = "flatten"
    report = measure_dimension(
        of.trained, of.probes, baseline="random", scales=True, per_class=of.settings.task == "classify", **options
    )
    keys = ("features", "samples", "two_nn", "standard_error", "low", "high", "pca", "duplicates", "lower_bound")
    by_weights = {"trained": report.layers, "random": report.baseline or {}}
    return {
        "last_hidden": report.last_hidden,
        "delta": report.delta,
        **{
            weights: {name: _plain(layer, keys) | _more(layer) for name, layer in layers.items()}
            for weights, layers in by_weights.items()
        },
    }


def spectrum(of: Subject) -> dict[str, Any]:
    """Return norms and eigenvalue histograms of the first two and last two operators before the output layer."""
    names = [name for name, layer in select_layers(of.trained).items() if isinstance(layer, nn.Linear | nn.Conv2d)]
    inner = names[:-1]
    chosen = list(dict.fromkeys([*inner[:2], *inner[-2:]]))
    example = of.probes[0][0][:1]
    found: dict[str, Any] = {}
    for weights, model in (("trained", of.trained), ("untrained", of.untrained)):
        report = measure_spectrum(
            model, example, layers=chosen, bins=60, seconds=of.settings.spectrum_seconds, progress=False
        )
        found[weights] = {
            name: {
                **_plain(h, ("size", "structural_zeros", "largest", "frobenius_norm", "stable_rank", "method")),
                "decay": rounded(asdict(h.decay)),
                "counts": rounded(h.counts.tolist(), 4),
                "edges": rounded([float(h.edges[0]), float(h.edges[-1])]),
            }
            for name, h in report.layers.items()
        }
        found[weights] |= {name: {"missing": why} for name, why in report.missing.items()}
    return found


def projection(of: Subject) -> dict[str, Any]:
    """Return loss and accuracy where every layer but the output keeps only the directions of a share of variance."""
    inner = inner_layers(of.trained)
    found: dict[str, Any] = {"whole": scores(of.trained, of.test, of.settings)}
    for delta in DELTAS:
        with project_outputs(of.trained, of.probes, delta, layers=inner) as ranks:
            found[f"{delta:g}"] = {**scores(of.trained, of.test, of.settings), "ranks": dict(ranks)}
    return found


def compression(of: Subject) -> dict[str, Any]:
    """Return loss, accuracy, parameters and FLOPs where every layer but the output is replaced by two thinner ones."""
    found: dict[str, Any] = {}
    for delta in DELTAS:
        undo = compress(of.trained, of.probes, delta=delta, basis="pca", layers=inner_layers(of.trained))
        try:
            sizes = {
                key: getattr(undo, key)
                for key in ("parameters_before", "parameters_after", "flops_before", "flops_after")
            }
            found[f"{delta:g}"] = {**scores(of.trained, of.test, of.settings), **sizes}
        finally:
            undo()
    return found


def pruning(of: Subject) -> dict[str, Any]:
    """Return accuracies where weights are cut instead, by truncated SVD and by magnitude, to the FLOPs of ``compress``.

    Layer by layer: as many singular values as ``compress`` keeps directions; or as large a share of single weights as
    it keeps FLOPs, which only hardware for sparse weights saves.
    """
    layers = {name: layer for name, layer in select_layers(of.trained).items() if name in inner_layers(of.trained)}
    found: dict[str, Any] = {}
    for delta in DELTAS:
        undo = compress(of.trained, of.probes, delta=delta, basis="pca", layers=list(layers))
        replaced, flops = undo.layers, undo.flops_after / undo.flops_before
        undo()
        found[f"{delta:g}"] = {"flops": flops}
        for kind, cut in (("svd", _truncated), ("magnitude", _largest)):
            whole = {name: layer.weight.detach().clone() for name, layer in layers.items()}
            with torch.no_grad():
                for name, layer in layers.items():
                    if replaced[name].rank < replaced[name].features:
                        layer.weight.copy_(cut(whole[name], replaced[name]))
                found[f"{delta:g}"][kind] = scores(of.trained, of.test, of.settings)
                for name, layer in layers.items():
                    layer.weight.copy_(whole[name])
    return rounded(found)


def _truncated(weight: Tensor, like: Replaced) -> Tensor:
    u, s, v = torch.linalg.svd(weight.flatten(1).double(), full_matrices=False)
    k = like.rank
    return (u[:, :k] * s[:k] @ v[:k]).reshape(weight.shape).to(weight)


def _largest(weight: Tensor, like: Replaced) -> Tensor:
    count = max(1, round(weight.numel() * like.flops_after / like.flops_before))
    least = weight.abs().flatten().kthvalue(weight.numel() - count + 1).values
    return torch.where(weight.abs() >= least, weight, 0.0)


MEASUREMENTS: dict[str, Callable[[Subject], dict[str, Any]]] = {
    "saturation": saturation,
    "projection": projection,
    "compression": compression,
    "pruning": pruning,
    "dimension": dimension,
    "spectrum": spectrum,
}


def inner_layers(model: nn.Module) -> list[str]:
    """Return the names of linear and convolutional layers but the output, in the order in which they are declared."""
    kinds = nn.Linear | nn.Conv2d
    return [name for name, layer in select_layers(model).items() if isinstance(layer, kinds)][:-1]


def _statistics(report: SaturationReport) -> dict[str, Any]:
    keys = ("features", "samples", "intrinsic_dimension", *STATISTICS)
    layers = {key: rounded([getattr(layer, key) for layer in report.layers.values()]) for key in keys}
    return {"layers": list(report.layers), "average": rounded(report.average), **layers}


def _plain(numbers: Any, keys: Iterable[str]) -> dict[str, Any]:
    return rounded({key: getattr(numbers, key) for key in keys})


def _more(layer: Any) -> dict[str, Any]:
    return rounded({"scales": [list(scale) for scale in layer.scales], "class_mean": layer.class_mean})


def batches_of(data: Iterable[Batch], count: int) -> list[Batch]:
    """Return the first batches of ``data`` that hold ``count`` samples together."""
    kept, samples = [], 0
    for batch in data:
        if samples >= count:
            break
        kept.append(batch)
        samples += len(batch[0])
    return kept
