"""What happens while a network learns: layers settling, freezing them, spectra when the learning rate drops."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from lightning_saturation import ClassSimilarity, FreezeTraining, SimilarityMonitor, SpectrumMonitor, capture
from paper.measure import Subject, inner_layers
from paper.networks import build
from paper.record import rounded
from paper.settings import Settings
from paper.studies.bench import Bench, by_epoch

FREEZING = {
    "plain": lambda: [],
    "linear": lambda: [FreezeTraining("linear")],
    "converged": lambda: [SimilarityMonitor(samples=500), FreezeTraining("converged", tolerance=0.05)],
}


def dynamics(bench: Bench, of: tuple[Settings, ...]) -> None:
    """Train with similarities watched: layers then against layers at the end, and class by class (figures 4 and 6)."""
    bench.part("dynamics", lambda: _dynamics(bench, of[0]))
    bench.part("classes", lambda: _classes(bench.trained(of[0])))


def freezing(bench: Bench, of: tuple[Settings, ...]) -> None:
    """Train each seed as it is and with layers frozen, in turns, and take the time (figure 5)."""
    for seed in bench.seeds():
        for kind in FREEZING:
            bench.part(f"{kind} {seed}", partial(_frozen, bench, of[seed], kind))


def drop(bench: Bench, of: tuple[Settings, ...]) -> None:
    """Train through a drop of the learning rate with spectra of operators measured (eigenvalue decay, section 3)."""
    for settings in of:
        bench.part(settings.name, partial(_spectra, bench, settings))


def _dynamics(bench: Bench, settings: Settings) -> dict[str, Any]:
    monitor = SimilarityMonitor(samples=1000, exclude=["*output"])
    _, rows = bench.fit(settings, "dynamics", [monitor])
    assert monitor.dynamics is not None
    return {
        "accuracy": rows[-1]["val/accuracy"],
        "panes": {
            f"{share:g}": {"layers": list(matrix.rows), "values": matrix.values.tolist()}
            for share, matrix in monitor.dynamics.panes.items()
        },
        "series": dict(monitor.series),
        "epochs": list(monitor.epochs),
    }


@torch.no_grad()
def _classes(of: Subject) -> dict[str, Any]:
    metrics: dict[str, ClassSimilarity] = {}
    rows: dict[str, torch.Tensor] = {}
    with capture(of.trained, rows.__setitem__, layers=inner_layers(of.trained)):
        for images, _ in of.test:
            logits = of.trained(images)
            for name, x in rows.items():
                metrics.setdefault(name, ClassSimilarity()).update(x, logits)
    return {name: metric.compute().tolist() for name, metric in metrics.items()}


def _frozen(bench: Bench, settings: Settings, kind: str) -> dict[str, Any]:
    callbacks = FREEZING[kind]()
    _, rows = bench.fit(settings, f"{kind}-{settings.seed}", callbacks)
    history = callbacks[-1].history if callbacks else []
    return {
        **by_epoch(rows, "val/accuracy", "val/loss", "seconds", "processor_seconds"),
        "steps": rows[-1]["step"],
        "frozen": [list(each) for each in history],
    }


def _spectra(bench: Bench, settings: Settings) -> dict[str, Any]:
    inputs = bench.inputs(settings)
    inner = inner_layers(build(settings, inputs.shape, inputs.classes))
    layers = [f"network.{name}" for name in dict.fromkeys([*inner[:2], *inner[-2:]])]
    every = max(1, settings.epochs // 12)
    seconds = max(20.0, settings.spectrum_seconds)
    monitor = SpectrumMonitor(layers, every_n_epochs=every, seconds=seconds, bins=60, progress=False)
    _, rows = bench.fit(settings, settings.name, [monitor])
    found: dict[str, Any] = {"epochs": [report.epoch for report in monitor.reports], "layers": {}}
    found["lr"] = [list(report.learning_rates) for report in monitor.reports]
    for name in layers:
        seen = [report.layers.get(name) for report in monitor.reports]
        found["layers"][name.removeprefix("network.")] = {
            key: [None if h is None else getattr(h, key) for h in seen]
            for key in ("size", "largest", "frobenius_norm", "stable_rank")
        } | {
            "exponent": [None if h is None else h.decay.exponent for h in seen],
            "counts": [None if h is None else rounded(h.counts.tolist(), 4) for h in seen],
            "edge": [None if h is None else float(h.edges[-1]) for h in seen],
        }
    return found | by_epoch(rows, "val/accuracy", "train/loss")
