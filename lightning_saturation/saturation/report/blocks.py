"""Layers of deep networks in groups that can be read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lightning_saturation.drawing.labels import shared_parts
from lightning_saturation.drawing.tabulated import Table, Tabulated, number

if TYPE_CHECKING:
    from lightning_saturation.saturation.report.report import SaturationReport


@dataclass(frozen=True)
class Block:
    """The mean, lowest and highest saturation of the ``layers`` of a block that are in the average; NaN for none."""

    layers: tuple[str, ...]
    average: float
    lowest: float
    highest: float


class Blocks(Tabulated, dict[str, Block]):
    """Blocks by name, in the order in which they run; ``str`` of it is a table."""

    def __repr__(self) -> str:
        return f"Blocks({', '.join(f'{name}: {number(block.average)}' for name, block in self.items())})"

    def _table(self) -> Table:
        rows = []
        for name, block in self.items():
            known = not math.isnan(block.average)
            numbers = [number(each) if known else "" for each in (block.average, block.lowest, block.highest)]
            rows.append((name, str(len(block.layers)), *numbers, "" if known else "not in the average"))
        bars = {2: [block.average for block in self.values()]}
        return Table("", ("block", "layers", "average", "lowest", "highest", ""), rows, bars)


def blocks_of(report: SaturationReport, *, depth: int | None) -> Blocks:
    """Return the layers of ``report`` by block; ``SaturationReport.by_block`` documents ``depth``."""
    if depth is not None and depth < 1:
        raise ValueError(f"Expected `depth` of at least 1 or None, got {depth}.")
    groups: dict[str, list[str]] = {}
    shared = shared_parts(report.layers)
    for name in report.layers:
        groups.setdefault(_block(name, shared, depth), []).append(name)
    return Blocks({block: _summary(report, names) for block, names in groups.items()})


def _block(name: str, shared: int, depth: int | None) -> str:
    parts = name.split(".")
    if depth is not None:
        return ".".join(parts[: shared + depth])
    numbered = next((index for index in range(shared, len(parts)) if parts[index].isdecimal()), shared)
    return ".".join(parts[: numbered + 1])


def _summary(report: SaturationReport, names: list[str]) -> Block:
    values = [report.layers[name].saturation for name in names if name in report.inner_layers]
    known = [value for value in values if not math.isnan(value)] or [math.nan]
    return Block(tuple(names), math.fsum(known) / len(known), min(known), max(known))
