"""SVCCA's toy: two networks learn four functions of one number; their neurons differ, their directions do not."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from lightning_saturation import capture, project_outputs
from lightning_saturation.functional import cca, unit_correlation
from paper.settings import Settings
from paper.studies.bench import Bench

POINTS = 10_000
SHOWN = 100
DIRECTIONS = (2, 6, 15, 30)


def answer(bench: Bench, of: tuple[Settings, ...]) -> None:
    """Train both networks and compare their last hidden layers (figures 1 and 3)."""
    bench.part("toy", lambda: _toy(steps=20 if of[0].epochs <= 2 else 3000, features=200))


def targets(x: Tensor) -> Tensor:
    """Return four functions of ``x`` (points, 1) in [-1, 1]."""
    return torch.cat([torch.sin(2 * math.pi * x), torch.cos(3 * math.pi * x), x.abs(), 2 * (x > 0).float() - 1], dim=1)


def network(features: int, seed: int) -> nn.Sequential:
    """Return four hidden layers; the last one is ``3`` of the layers to look at."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for inside in (1, features, features, features):
            layers += [nn.Linear(inside, features), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(features, 4))


def _toy(*, steps: int, features: int) -> dict[str, Any]:
    x = torch.linspace(-1, 1, POINTS)[:, None]
    y = targets(x)
    models = [_trained(network(features, seed), x, y, steps, seed) for seed in (0, 1)]
    last = "6"
    hidden = [_outputs(model, x, last) for model in models]
    with torch.no_grad():
        losses = [float(nn.functional.mse_loss(model(x), y)) for model in models]
    found: dict[str, Any] = {"loss": losses, "steps": steps}
    pair = cca(*hidden, delta=0.99)
    found["correlations"] = pair.correlations.tolist()
    most = min(4, len(pair.correlations))
    shown = torch.linspace(0, POINTS - 1, SHOWN).long()
    active = [h[:, h.square().mean(0).argsort(descending=True)[:most]] for h in hidden]
    principal = [h @ torch.linalg.eigh(torch.cov(h.T)).eigenvectors.flip(1)[:, :most] for h in hidden]
    directions = [h @ d[:, :most] for h, d in zip(hidden, (pair.x_directions, pair.y_directions), strict=True)]
    kinds = {"most active neurons": active, "principal directions": principal, "SVCCA directions": directions}
    found["shown"] = {kind: [_standard(rows)[shown].T.tolist() for rows in both] for kind, both in kinds.items()}
    found["agreement"] = {
        kind: [abs(float(unit_correlation(a[:, [i]], b[:, [i]]))) for i in range(most)]
        for kind, (a, b) in kinds.items()
    }
    with torch.no_grad():
        found["outputs"] = {"all": models[0](x)[shown].T.tolist()}
        for k in DIRECTIONS:
            with project_outputs(models[0], [x], ranks=k, basis="svcca", layers=[last], reference=models[1]):
                projected = models[0](x)
            found["outputs"][k] = projected[shown].T.tolist()
            error = (projected - y).square().mean() / (y - y.mean(0)).square().mean()
            found.setdefault("unexplained", {})[k] = float(error)
    return found


def _trained(model: nn.Sequential, x: Tensor, y: Tensor, steps: int, seed: int) -> nn.Sequential:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    draw = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = torch.randint(len(x), (256,), generator=draw)
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x[rows]), y[rows]).backward()
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def _outputs(model: nn.Module, x: Tensor, layer: str) -> Tensor:
    rows: dict[str, Tensor] = {}
    with capture(model, rows.__setitem__, layers=[layer]):
        model(x)
    return rows[layer].double().relu()  # what the neurons emit, as the paper has it


def _standard(rows: Tensor) -> Tensor:
    return (rows - rows.mean(0)) / rows.std(0).clamp(min=1e-12)
