"""Whether the widths that a profile suggests are better than those that anybody would try."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lightning_saturation import measure_saturation
from paper.measure import inner_layers
from paper.networks import build
from paper.settings import Settings
from paper.studies.bench import Bench

TARGET = 0.45
"""The average saturation beyond which Shenk et al. see performance fall (section 3.4)."""


def answer(bench: Bench, of: tuple[Settings, ...]) -> None:
    """Train a network again with the widths that its profile suggests, and with widths that need no profile."""
    settings = of[0]
    advice = bench.part("advice", lambda: _advice(bench, settings))
    own, suggested = tuple(advice["own"].values()), tuple(advice["suggested"].values())
    goal = _size(bench, settings, suggested)[0]
    tried = {
        "as it is": own,
        "suggested": suggested,
        "scaled to the size of the suggested": _like(bench, settings, own, goal),
        "doubled": _scaled(own, 2.0),
        "halved": _scaled(own, 0.5),
    }
    for kind, widths in tried.items():
        for seed in bench.seeds(len(of)):
            changed = replace(settings, widths=widths, seed=seed)
            bench.part(f"{kind} {seed}", lambda run=changed, kind=kind: _trained(bench, run, kind))


def _advice(bench: Bench, settings: Settings) -> dict[str, Any]:
    of = bench.trained(settings)
    report = measure_saturation(of.trained, of.probes, pooling=of.pooling, progress=False)
    names = inner_layers(of.trained)
    own = {name: report.layers[name].features for name in names}
    estimates = report.suggest_widths(target=TARGET)
    return {
        "target": TARGET,
        "average": report.average,
        "own": own,
        "suggested": {name: int(estimates.get(name, features)) for name, features in own.items()},
        "saturation": {name: report.layers[name].saturation for name in names},
    }


def _trained(bench: Bench, settings: Settings, kind: str) -> dict[str, Any]:
    parameters, flops = _size(bench, settings, settings.widths)
    _, rows = bench.fit(settings, f"{kind.replace(' ', '-')}-{settings.seed}")
    last = rows[-1]
    return {
        "widths": list(settings.widths),
        "parameters": parameters,
        "flops": flops,
        "val/accuracy": last["val/accuracy"],
        "val/loss": last["val/loss"],
        "seconds": sum(row["processor_seconds"] for row in rows),
    }


def _like(bench: Bench, settings: Settings, own: tuple[int, ...], parameters: int) -> tuple[int, ...]:
    """Return ``own`` times the factor at which the network has about as many ``parameters``."""
    low, high = 0.02, 50.0
    for _ in range(30):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if _size(bench, settings, _scaled(own, middle))[0] < parameters else (low, middle)
    return _scaled(own, (low * high) ** 0.5)


def _scaled(widths: tuple[int, ...], factor: float) -> tuple[int, ...]:
    return tuple(max(1, round(factor * width)) for width in widths)


def _size(bench: Bench, settings: Settings, widths: tuple[int, ...]) -> tuple[int, int]:
    """Return the parameters of the network with these ``widths``, and its multiplications and additions an image."""
    inputs = bench.inputs(settings)
    network = build(replace(settings, widths=widths), inputs.shape, inputs.classes).eval()
    counted: list[int] = []

    def count(layer: nn.Module, _: Any, output: Tensor) -> None:
        positions = output[0].numel() // output.shape[1]
        counted.append(2 * positions * layer.weight.numel())

    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            layer.register_forward_hook(count)
    with torch.no_grad():
        network(torch.zeros(1, *inputs.shape))
    return sum(p.numel() for p in network.parameters()), sum(counted)
