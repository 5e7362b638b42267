"""The studies: each on a cheap network first, then on one of the paper's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

from paper.plan import MEASURING, cost
from paper.settings import CAT_DOG, PHOTOS, RANDOM_LABELS, Settings
from paper.studies import alike, pairs, pruned, sizing, toy, training
from paper.studies.bench import Study, family


@cache
def studies() -> tuple[Study, ...]:
    """Return all studies, cheapest first."""
    return tuple(sorted(_studies(), key=lambda study: (study.seconds, study.name)))


def _studies() -> Iterator[Study]:
    cheap, middle, proper = Settings("vgg11", 1 / 16, CAT_DOG), Settings("vgg11", 1 / 16), Settings("vgg11", 1 / 4)
    yield Study("toy", "toy", (cheap,), 60.0, toy.answer)
    for run in (cheap, middle, proper):
        yield _study("pair", _seeds(run, 2), pairs.answer, 2.5)
        yield _study("dynamics", (run,), training.dynamics, 2.3)
        yield _study("freezing", _seeds(run, 3), training.freezing, 3.2)
    for data, widths in ((CAT_DOG, (1 / 16, 1 / 8)), (PHOTOS, (1 / 16, 1 / 8, 1 / 4))):
        of = [seed for width in widths for seed in _seeds(Settings("vgg11", width, data), 2)]
        yield _study("widths", tuple(of), alike.seeds, 1.2)
    memory = {"epochs": 60, "limit": 10_000, "augment": False}
    of = [seed for data in (PHOTOS, RANDOM_LABELS) for seed in _seeds(Settings("vgg11", 1 / 8, data, **memory), 2)]
    yield _study("memorising", tuple(of), alike.seeds, 1.2)
    yield _study("architectures", (Settings("vgg11", 1 / 4), Settings("resnet18", 1 / 4)), alike.architectures, 1.2)
    step = {"epochs": 60, "schedule": "step", "limit": 16_000}
    sgd = {"optimizer": "sgd", "learning_rate": 0.05, "weight_decay": 5e-4}
    dropping = replace(cheap, epochs=30, schedule="step")
    yield _study("drop", (dropping,), training.drop, 3.0)
    yield _study("drop", (Settings("vgg11", 1 / 8, **step, **sgd),), training.drop, 2.0)
    for hidden in (8, 128):
        for data in (CAT_DOG, PHOTOS):
            yield _study("sizing", _seeds(Settings("mlp", hidden, data), 2), sizing.answer, 6.0)
    for width in (1 / 16, 1 / 8, 1 / 4):
        for data in (CAT_DOG, PHOTOS):
            yield _study("sizing", _seeds(Settings("vgg11", width, data), 2), sizing.answer, 7.0)
    for data in (CAT_DOG, PHOTOS):
        of = Settings("vgg11", 1 / 8, data), Settings("vgg11", 1 / 16, data)
        yield Study(f"pruned_{data}", "pruned", of, 3 * (3 * cost(of[0]) + 3 * cost(of[1])), pruned.answer)


def _study(kind: str, of: tuple[Settings, ...], answer, factor: float) -> Study:
    """Return a study named after its first run, that takes ``factor`` times as long as training all of them."""
    names = dict.fromkeys(family(each) for each in of)
    name = kind if kind == "memorising" else f"{kind}_{next(iter(names))}"
    return Study(name, kind, of, factor * sum(cost(each) - MEASURING for each in of) + MEASURING, answer)


def _seeds(settings: Settings, count: int) -> tuple[Settings, ...]:
    return tuple(replace(settings, seed=seed) for seed in range(count))
