"""Accuracy where layers keep few directions, and where they are replaced by two thinner ones (SVCCA, section 4.4)."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from paper.figures.records import Record, grouped, usual
from paper.figures.style import NAMES, fraction, shade
from paper.settings import Settings


def accuracy(records: list[Record]) -> Figure | None:
    """Accuracy lost against the share of variance kept, and against the FLOPs that are left."""
    kinds = {data: [r for r in usual(records, data=data) if _measured(r)] for data in ("photos", "cat-dog")}
    kinds = {data: runs for data, runs in kinds.items() if runs}
    if not kinds:
        return None
    figure, panes = plt.subplots(2, len(kinds), figsize=(4.8 * len(kinds), 6.4), layout="constrained", squeeze=False)
    keys = {_key(record.settings) for runs in kinds.values() for record in runs}
    for column, (data, runs) in zip(panes.T, kinds.items(), strict=True):
        groups = grouped(runs, _key)
        for key, members in groups.items():
            color, label = shade(key, keys), _label(key[2], key[1])
            lost = np.array([_lost(record, "projection") for record in members])
            column[0].plot(_deltas(members[0]), lost.mean(0), "o-", color=color, markersize=3, label=label)
            thinner = np.array([_lost(record, "compression") for record in members]).mean(0)
            flops = np.array([_flops(record) for record in members]).mean(0)
            column[1].plot(flops, thinner, "o-", color=color, markersize=3)
        column[0].set(title=NAMES[data], xlabel="share of variance kept in every layer")
        column[1].set(xlabel="FLOPs left (δ = .9, .95, .99, .999)")
        column[0].legend(fontsize=6, ncols=2)
    panes[0, 0].set_ylabel("change of test accuracy, outputs projected")
    panes[1, 0].set_ylabel("change of test accuracy, compressed")
    return figure


def _measured(record: Record) -> bool:
    measured = record.numbers["measured"]
    return record.settings.task == "classify" and bool(measured.get("projection") and measured.get("compression"))


def _deltas(record: Record) -> list[str]:
    return [key for key in record.numbers["measured"]["projection"] if key != "whole"]


def _lost(record: Record, kind: str) -> list[float]:
    whole = record.numbers["measured"]["projection"]["whole"]["accuracy"]
    return [record.numbers["measured"][kind][delta]["accuracy"] - whole for delta in _deltas(record)]


def _flops(record: Record) -> list[float]:
    found = [record.numbers["measured"]["compression"][delta] for delta in _deltas(record)]
    return [numbers["flops_after"] / numbers["flops_before"] for numbers in found]


def _key(settings: Settings) -> tuple[bool, float, str]:
    return settings.model == "mlp", settings.width, settings.model


def _label(model: str, width: float) -> str:
    return f"dense {width:g}" if model == "mlp" else f"{model.upper()} {fraction(width)}"
