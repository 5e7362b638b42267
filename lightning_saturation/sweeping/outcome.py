"""What a sweep came to: its trials, the best first."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from lightning_saturation.drawing.replacing import replacing
from lightning_saturation.drawing.tabulated import Table, Tabulated, number
from lightning_saturation.loggers.tabular import to_csv
from lightning_saturation.sweeping.grid import title_of, varied


@dataclass(frozen=True)
class SweepOutcome(Tabulated):
    """The ``results`` of a sweep's finished trials, the best by ``metric`` first, and why others ``failed``.

    A result holds its ``config``, ``value`` (of the metric), ``average`` saturation, ``verdict``, ``findings``,
    saturation by layer (``layers``), ``parameters``, ``epochs`` and ``seconds``. ``str`` gives the ranking.
    """

    metric: str
    results: tuple[dict[str, Any], ...]
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def best(self) -> dict[str, Any]:
        """The result of the best trial; a ``ValueError`` where none has finished."""
        if not self.results:
            raise ValueError(f"Expected a finished trial, got none; failed: {self.failed}.")
        return self.results[0]

    def to_records(self) -> list[dict[str, Any]]:
        """Return one plain dict per trial, for a table or a data frame, the best first."""
        return [
            {
                "rank": rank,
                **result["config"],
                self.metric: result["value"],
                "average saturation": result["average"],
                "parameters": result["parameters"],
                "epochs": result["epochs"],
                "seconds": result["seconds"],
                "findings": _in_short(result),
                "verdict": result["verdict"],
            }
            for rank, result in enumerate(self.results, start=1)
        ]

    def plot(self) -> Figure:
        """Return a matplotlib figure: average saturation against the metric, a point for each trial."""
        from lightning_saturation.sweeping.plots import scatter_figure

        return scatter_figure(self.results, metric=self.metric)

    def save(self, folder: Path) -> None:
        """Write ``ranking.csv``, ``ranking.txt`` and ``scatter.png`` into ``folder``."""
        with replacing(folder / "ranking.csv") as path:
            path.write_text(to_csv(self.to_records()), encoding="utf-8")
        with replacing(folder / "ranking.txt") as path:
            path.write_text(f"{self}\n", encoding="utf-8")
        with replacing(folder / "scatter.png") as path:
            self.plot().savefig(path, dpi=120, format="png")

    def __repr__(self) -> str:
        return f"SweepOutcome({len(self.results)} trials by {self.metric}, {len(self.failed)} failed)"

    def _table(self) -> Table:
        head = ("rank", "config", self.metric, "saturation", "parameters", "findings")
        averages = [math.nan if result["average"] is None else result["average"] for result in self.results]
        titles = [title_of(config) for config in varied([result["config"] for result in self.results])]
        rows = [
            (str(rank), title, f"{result['value']:.4g}", number(average),
             f"{result['parameters']:,}", _in_short(result))
            for rank, (result, title, average) in enumerate(zip(self.results, titles, averages, strict=True), start=1)
        ]  # fmt: skip
        below = [f"The best, {titles[0]}. {self.best['verdict']}"] if self.results else []
        failed = [f"Failed: {name}. {error}" for name, error in self.failed.items()]
        return Table("", head, rows, {3: averages}, below=[*below, *failed])


def _in_short(result: dict[str, Any]) -> str:
    """Return the findings with the layers that they are about, all of them where they are few."""
    parts = []
    for finding in result["findings"]:
        names = finding["layers"]
        whole = len(names) >= len(result["layers"]) - 1  # the network but for its output layer
        span = ", ".join(names) if len(names) <= 2 else f"{names[0]} … {names[-1]}, {len(names)} layers"
        parts.append(finding["kind"] if whole else f"{finding['kind']} ({span})")
    return "; ".join(dict.fromkeys(parts)) or "nothing to flag"
