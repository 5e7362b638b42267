"""Where a study works: it trains what it needs, keeps what it has found, and goes on after a kill."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from paper.measure import Subject, batches_of
from paper.record import read, rounded, write
from paper.settings import Settings, small
from paper.task import Batch
from paper.training import Inputs, Places, fit, inputs_of, keep, subject


@dataclass(frozen=True)
class Study:
    """A question about the networks ``of`` a few runs; ``seconds`` of one slow thread are what an answer takes."""

    name: str
    kind: str
    of: tuple[Settings, ...]
    seconds: float
    answer: Callable[[Bench, tuple[Settings, ...]], None] = field(compare=False, repr=False)


class Bench:
    """The places, the scale and the record of one study at work."""

    def __init__(self, study: Study, places: Places, *, scale: str = "paper") -> None:
        self.places, self.study, self.scale = places, study, scale
        self.of = tuple(small(each) for each in study.of) if scale == "small" else study.of
        self.record = read(self.path) or self._empty()
        self._inputs: dict[tuple[Any, ...], Inputs] = {}

    @property
    def path(self) -> Path:
        """The file of the record."""
        return self.places.results / "studies" / f"{self.study.name}.json"

    def answer(self) -> dict[str, Any]:
        """Return the record of the study, with what was still missing."""
        if not self.record["finished"]:
            self.study.answer(self, self.of)
            self.record["finished"] = True
            write(self.path, self.record)
        return self.record

    def part(self, name: str, find: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return what ``find`` finds; it is asked once, and the record keeps it."""
        if name not in self.record["parts"]:
            start = time.perf_counter()
            self.record["parts"][name] = rounded(find())
            self.record["seconds_of"][name] = rounded(time.perf_counter() - start, 3)
            write(self.path, self.record)
        return self.record["parts"][name]

    def seeds(self, count: int = 3) -> tuple[int, ...]:
        """Return the seeds to average over; one is enough to show that all parts work together."""
        return (0,) if self.scale == "small" else tuple(range(count))

    def inputs(self, settings: Settings) -> Inputs:
        """Return the samples of a run; runs on the same images share them."""
        key = (settings.data, settings.limit, settings.augment, settings.task)
        key += (settings.seed,) if settings.data in ("unbalanced", "random-labels") else ()
        if key not in self._inputs:
            self._inputs[key] = inputs_of(settings, self.places)
        return self._inputs[key]

    def trained(self, settings: Settings) -> Subject:
        """Return the network of a run of the plan, trained here where nobody has done so yet."""
        weights = self.places.of(settings.name, "weights")
        if not weights.exists():
            network, _ = fit(settings, self.inputs(settings), self.places, name=f"{self.study.name}-{settings.name}")
            keep(network, weights)
        return subject(settings, self.inputs(settings), weights)

    def fit(
        self, settings: Settings, part: str, callbacks: Sequence[Callback] = ()
    ) -> tuple[nn.Module, list[dict[str, Any]]]:
        """Return a network trained for this study alone, and what was logged by epoch."""
        name = f"{self.study.name}-{part}"
        return fit(settings, self.inputs(settings), self.places, name=name, callbacks=callbacks)

    def test(self, settings: Settings, count: int = 2000) -> list[Batch]:
        """Return the first test samples, in batches."""
        images = self.inputs(settings).test
        drawn = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:count]
        inputs = replace(self.inputs(settings), test=torch.utils.data.Subset(images, drawn.tolist()))
        return batches_of(inputs.tests(), count)

    def _empty(self) -> dict[str, Any]:
        of = [each.to_record() for each in self.of]
        record = {"name": self.study.name, "kind": self.study.kind, "of": of, "finished": False}
        return {**record, "versions": {"torch": str(torch.__version__)}, "parts": {}, "seconds_of": {}}


def family(settings: Settings) -> str:
    """Return the name of a run without its seed."""
    return settings.name.rsplit("_s", 1)[0]


def by_epoch(rows: Sequence[dict[str, Any]], *keys: str) -> dict[str, list[Any]]:
    """Return what was logged under ``keys``, by epoch."""
    return {key: [row.get(key) for row in rows] for key in keys}
