"""The rules that turn a profile into findings; each makes a finding only where the data support it.

A layer seen with too few samples shows a lower saturation than it has, and a missing one shows none. Such layers can
support "at least so high", never "so low". Of a sketched layer its certain bounds count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightning_saturation.saturation.report.diagnosis import Diagnosis, Finding, listed

if TYPE_CHECKING:
    from lightning_saturation.saturation.report.report import SaturationReport

PAPER = "Shenk et al., Spectral Analysis of Latent Representations"
MEASURED_AT = 0.99
"""The explained variance at which the paper's 45 % was read off."""


def inner_layers(report: SaturationReport) -> list[str]:
    """Return the layers that are in the average, in the order in which they run."""
    return list(report.inner_layers)


def alike(report: SaturationReport) -> list[str]:
    """Return those of them whose rows are of the kind of the last one's: others cannot be compared with it."""
    inner = inner_layers(report)
    return [name for name in inner if report.layers[name].rows == report.layers[inner[-1]].rows]


def at_least(report: SaturationReport, name: str) -> float:
    """Return what the saturation of a layer is at least: 0 where it is missing."""
    layer = report.layers[name]
    known = layer.saturation if math.isnan(layer.saturation_lower) else layer.saturation_lower
    return 0.0 if math.isnan(known) else known


def at_most(report: SaturationReport, name: str) -> float:
    """Return what the saturation of a layer is at most: 1 where it is missing or seen with too few samples."""
    layer = report.layers[name]
    known = layer.saturation if math.isnan(layer.saturation_upper) else layer.saturation_upper
    return 1.0 if math.isnan(known) or layer.too_few_samples else known


def too_few_samples(report: SaturationReport) -> Finding | None:
    """Return the layers whose samples cannot span their features, if any."""
    short = {name: layer for name, layer in report.layers.items() if layer.too_few_samples and layer.rows != "none"}
    if not short:
        return None
    needed = max(layer.features for layer in short.values()) + 1
    parts = [f"{name}: {layer.samples} for {layer.features} features" for name, layer in short.items()]
    return Finding(
        "too few samples",
        f"saturation is capped at (samples - 1) / features in {len(short)} of {len(report.layers)} layers; "
        f"at least {needed} samples are needed in a window, better several times as many ({listed(tuple(parts))})",
        tuple(short),
        {"needed": needed, "samples": min(layer.samples for layer in short.values())},
        "a covariance of n samples has at most rank n - 1",
    )


def underparameterised(report: SaturationReport, above: float) -> Finding | None:
    """Return a finding if the average saturation is above ``above`` even with missing layers counted as 0."""
    inner = inner_layers(report)
    bound = math.fsum(at_least(report, name) for name in inner) / max(len(inner), 1)
    if bound <= above:
        return None
    return Finding(
        "underparameterised",
        f"the average saturation is {report.average:.2f}, above {above:.2f}; more features per layer usually lower it "
        "and help more than more layers",
        tuple(inner),
        {"average": report.average, "threshold": above},
        f"{PAPER}, section 3.4, figure 9",
    )


def high_from_the_start(windows: Sequence[SaturationReport], above: float, epochs: int) -> Finding | None:
    """Return a finding if the average was above ``above`` in all windows, the first ``epochs`` epochs among them."""
    complete = [window for window in windows if not window.partial]
    if not set(range(epochs)) <= {window.epoch for window in complete}:
        return None
    lowest = min(complete, key=lambda window: -math.inf if math.isnan(window.average) else window.average)
    if not all(underparameterised(window, above) for window in complete):
        return None
    first = min(complete, key=lambda window: (window.epoch, window.step))
    return Finding(
        "underparameterised",
        f"the average saturation was high from the first epoch on: {first.average:.2f} in epoch {first.epoch}, never "
        f"below {lowest.average:.2f} since",
        tuple(inner_layers(first)),
        {"first": first.average, "lowest": lowest.average, "threshold": above, "windows": len(complete)},
        f"{PAPER}, section 3.5, figure 11",
    )


def tail(report: SaturationReport, below: float, layers: int, drop: float) -> Finding | None:
    """Return the run of layers below ``below`` that ends the network, if it has ``layers`` and follows higher ones."""
    inner = alike(report)
    length = next((i for i, name in enumerate(reversed(inner)) if at_most(report, name) >= below), len(inner))
    low, before = tuple(inner[len(inner) - length :]), inner[: len(inner) - length]
    highest = max((at_most(report, name) for name in low), default=math.nan)
    peak = max((at_least(report, name) for name in before), default=0.0)
    if length < layers or peak < drop * highest:
        return None
    return Finding(
        "overparameterised tail",
        f"the last {length} of {len(inner)} layers stay below {below:.2f} (highest {highest:.2f}) after a peak of "
        f"{peak:.2f}; the network may do as well without them, or with fewer features there: {listed(low)}",
        low,
        {"highest": highest, "peak": peak, "threshold": below, "layers": length},
        f"{PAPER}, section 3.5, figures 1 and 10; the threshold is a choice of this package",
    )


def bottlenecks(report: SaturationReport, above: float) -> list[Finding]:
    """Return the layers that lie at least ``above`` over both neighbours."""
    names = list(report.layers)
    findings = []
    for before, name, after in zip(names, names[1:], names[2:], strict=False):
        here, around = at_least(report, name), max(at_most(report, before), at_most(report, after))
        layer = report.layers[name]
        same = layer.rows == report.layers[before].rows == report.layers[after].rows
        if name in report.output_layers or layer.rows == "none" or not same or here - around < above:
            continue
        message = (
            f"{name} fills {here:.2f} of its {layer.features} features, its neighbours at most {around:.2f}: "
            "it may be too narrow"
        )
        evidence = {"saturation": here, "neighbours": around, "threshold": above}
        source = f"{PAPER}, section 3.2, figure 2; the comparison with the neighbours is a choice of this package"
        findings.append(Finding("bottleneck", message, (name,), evidence, source))
    return findings


def judge(
    report: SaturationReport,
    history: Sequence[SaturationReport],
    *,
    average_above: float,
    early_epochs: int,
    tail_below: float,
    tail_layers: int,
    tail_drop: float,
    bottleneck_above: float,
) -> Diagnosis:
    """Return what all rules together say; ``SaturationReport.diagnose`` documents the arguments."""
    for name, value in (("average_above", average_above), ("tail_below", tail_below)):
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"Expected `{name}`, a saturation, in [0, 1], got {value}.")
    for name, value in (("bottleneck_above", bottleneck_above), ("tail_drop", tail_drop)):
        if not value > 0:
            raise ValueError(f"Expected `{name}` above 0, got {value}.")
    for name, count in (("early_epochs", early_epochs), ("tail_layers", tail_layers)):
        if count < 1:
            raise ValueError(f"Expected `{name}` of at least 1, got {count}.")
    earlier = [h for h in history if h.stage == report.stage and (h.epoch, h.step) < (report.epoch, report.step)]
    findings: list[Finding | None] = []
    notes = []
    if report.delta > MEASURED_AT:
        notes.append(f"underparameterised: a rule for delta up to {MEASURED_AT}, this is delta {report.delta:g}")
    else:
        findings.append(underparameterised(report, average_above))
        findings.append(high_from_the_start([*earlier, report], average_above, early_epochs))
        if report.average > average_above and findings[0] is None:
            average = f"{report.average:.2f} is above {average_above:.2f}"
            notes.append(f"underparameterised: the average {average}, but not for sure: layers are missing or sketched")
    findings += [tail(report, tail_below, tail_layers, tail_drop), *bottlenecks(report, bottleneck_above)]
    findings.append(too_few_samples(report))
    made = tuple(finding for finding in findings if finding is not None)
    return Diagnosis(report.stage, report.epoch, report.average, made, tuple(notes))
