"""Dataclasses as plain numbers."""

import math
from dataclasses import dataclass, field

import torch

from lightning_saturation.drawing.tabulated import columns, plain, record
from lightning_saturation.saturation.report.layer import LayerStatistics


@dataclass
class Item:
    count: int
    share: float = math.nan
    note: str = ""
    certain: bool = False
    values: torch.Tensor = field(default_factory=lambda: torch.ones(2))
    by_name: dict[str, float] = field(default_factory=dict)


def test_a_record_holds_numbers_and_texts_only_and_none_for_what_is_missing():
    assert record(Item(3)) == {"count": 3, "share": None, "note": "", "certain": False}
    assert columns(Item) == list(record(Item(3)))
    assert "eigenvalues" not in columns(LayerStatistics)
    assert {"saturation", "saturation_lower", "skipped"} <= set(columns(LayerStatistics))
    assert (plain(math.nan), plain(0.0), plain("nan")) == (None, 0.0, "nan")
