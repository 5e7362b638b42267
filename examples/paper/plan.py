"""The runs, cheapest first; a second seed waits as if it took three times as long, a third as if six times."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache

from paper.settings import CAT_DOG, PHOTOS, RANDOM_LABELS, SCHEDULES, TEXT, UNBALANCED, Settings

DEPTHS = (11, 13, 16, 19)
WIDTHS = (1 / 16, 1 / 8, 1 / 4)
HIDDEN = (8, 16, 32, 64, 128)
BOTTLENECKS = (8, 16, 32, 64, 128, 256)

LONG = 540.0
"""Seconds of one slow thread, about three minutes of two quick ones, beyond which a run has one seed only."""

MEASURING = 25.0
"""Seconds that starting a run and measuring its network take at least."""

_STEP_MS = {  # of 128 images on one slow thread, by model: at width 1/16, and how it grows with every doubling
    "mlp": (8.0, 1.0),
    "vgg11": (28.0, 1.7),
    "vgg13": (45.0, 1.8),
    "vgg16": (48.0, 1.8),
    "vgg19": (51.0, 1.9),
    "resnet18": (60.0, 1.8),
    "autoencoder": (25.0, 1.0),
    "transformer": (150.0, 1.0),
}
_IMAGES = {PHOTOS: 50_000, CAT_DOG: 10_000, UNBALANCED: 33_333, RANDOM_LABELS: 50_000, TEXT: 13_000}


def cost(settings: Settings) -> float:
    """Return about how many seconds of one slow thread the run takes."""
    base, growth = _STEP_MS[settings.model]
    step = base * growth ** math.log2(16 * settings.width) if growth > 1.0 else base
    images = min(_IMAGES[settings.data], settings.limit or math.inf)
    return MEASURING + settings.epochs * images / 128 * step / 1000


@cache
def plan() -> tuple[Settings, ...]:
    """Return all runs in the order in which they are worth taking."""
    runs = list(dict.fromkeys(_runs()))
    return tuple(sorted(runs, key=lambda run: (priority(run), run.name)))


def priority(settings: Settings) -> float:
    """Return the seconds by which runs are put in order, those of further seeds counted several times."""
    return cost(settings) * (1, 3, 6)[settings.seed]


def find(name: str) -> Settings:
    """Return the run called ``name``; ValueError where the plan holds none."""
    by_name = {run.name: run for run in plan()}
    if name not in by_name:
        raise ValueError(f"Expected the name of a run (--list shows them), got {name!r}.")
    return by_name[name]


def _runs() -> Iterator[Settings]:
    yield from _seeds(Settings("mlp", hidden, data) for data in (PHOTOS, CAT_DOG) for hidden in HIDDEN)
    grid = [Settings(f"vgg{depth}", width) for depth in DEPTHS for width in WIDTHS]
    yield from _seeds(grid)
    yield from _seeds(Settings(run.model, run.width, CAT_DOG) for run in grid)
    yield from _seeds(Settings("vgg11", width, UNBALANCED) for width in WIDTHS)
    yield from _seeds(Settings("autoencoder", units, augment=False) for units in BOTTLENECKS)
    yield from _seeds([Settings("resnet18", 1 / 4)])
    yield from _seeds([Settings("transformer", 64, TEXT, augment=False)])
    # Generalising against memorising: the same images and the same training, true labels and drawn ones.
    memory = {"epochs": 60, "limit": 10_000, "augment": False}
    for data in (PHOTOS, RANDOM_LABELS):
        yield from _seeds(Settings("vgg11", width, data, **memory) for width in (1 / 8, 1 / 4))
    yield from _patient()


def _patient() -> Iterator[Settings]:
    """Runs that go on long after they should have stopped, under each schedule of the learning rate."""
    sgd = {"optimizer": "sgd", "learning_rate": 0.05, "weight_decay": 5e-4}
    for schedule in SCHEDULES:
        long = {"epochs": 60, "schedule": schedule}
        yield from _seeds((Settings("mlp", hidden, **long) for hidden in (16, 128)), 2)
        yield from _seeds((Settings("vgg11", width, limit=16_000, **long) for width in (1 / 16, 1 / 8)), 2)
        yield from _seeds([Settings("vgg11", 1 / 8, CAT_DOG, **long)], 2)
        yield from _seeds([Settings("vgg13", 1 / 16, limit=16_000, **long)], 2)
        yield from _seeds([Settings("vgg11", 1 / 8, limit=16_000, **long, **sgd)], 2)


def _seeds(runs: Iterable[Settings], seeds: int = 3) -> Iterator[Settings]:
    """Yield each run from so many seeds, from one where it takes long."""
    for run in runs:
        for seed in range(seeds if cost(run) < LONG else 1):
            yield replace(run, seed=seed)
