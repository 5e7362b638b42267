"""A network of the zoo, measured and held against what is true of it."""

import warnings
from typing import Any, NamedTuple

import numpy as np
import torch

from lightning_saturation import SaturationReport, measure_saturation
from tests.zoo.network import Network
from tests.zoo.reference import Truth, known_layers, truth


class Result(NamedTuple):
    """What was measured, what is true, and in which respects they differ."""

    report: SaturationReport
    truth: Truth
    modules: int
    wrong: list[str]
    warned: list[str]
    remark: str


def check(build: Any) -> Result:
    """Return how the network that ``build`` makes is measured, and what of that is wrong."""
    torch.manual_seed(0)
    network: Network = build()
    network.model.double().eval()
    true = truth(network)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report = measure_saturation(
            network.model, network.batches, forward=network.forward, progress=False, max_samples=None
        )
    said = sorted({str(each.message) for each in caught if each.category is UserWarning})
    return Result(
        report, true, len(known_layers(network.model)), differences(report, true, network.outputs), said, network.remark
    )


def differences(report: SaturationReport, true: Truth, named: tuple[str, ...] | None = None) -> list[str]:
    """Return every respect in which ``report`` is not what is ``true``; output layers may be ``named`` by hand."""
    wrong = []
    outputs = true.outputs if named is None else set(named)
    if set(report.layers) != set(true.layers):
        wrong.append(f"layers: {sorted(set(report.layers) ^ set(true.layers))}")
    names = [name for name in report.layers if name in true.layers]
    late = [
        (b, a)
        for i, a in enumerate(names)
        for b in names[i + 1 :]
        if a in true.reached[b] and b not in true.reached[a] and true.layers[a].rows != "none"
    ]
    if late:
        wrong.append(f"order: {late[:3]}")
    if set(report.output_layers) != outputs and len(outputs) < len(names):
        wrong.append(f"outputs: {report.output_layers} for {sorted(outputs)}")
    for name in names:
        mine, theirs = report.layers[name], true.layers[name]
        pairs = {what: (getattr(mine, what), getattr(theirs, what)) for what in ("rows", "samples", "features")}
        wrong += [f"{what} of {name}: {a} for {b}" for what, (a, b) in pairs.items() if a != b]
        if mine.features == theirs.features and not _alike(mine.eigenvalues, theirs.eigenvalues):
            wrong.append(f"spectrum of {name}")
        elif theirs.rows != "none" and theirs.eigenvalues.sum() > 1e-20:
            total = theirs.eigenvalues.sum()
            dimension = int((np.cumsum(theirs.eigenvalues) < 0.99 * total * (1 - 1e-12)).sum()) + 1
            if mine.intrinsic_dimension != dimension:
                wrong.append(f"dimension of {name}: {mine.intrinsic_dimension} for {dimension}")
    return wrong


def _alike(mine: Any, theirs: np.ndarray) -> bool:
    return mine is not None and np.allclose(mine.numpy(), theirs, rtol=1e-6, atol=1e-9 * max(theirs.max(), 1e-12))
