"""The rules that turn a profile into findings; each makes a finding only where the data support it.

A layer seen with too few samples shows a lower saturation than it has, and a missing one shows none. Such layers can
support "at least so high", never "so low". Of a sketched layer its certain bounds count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from lightning_saturation.saturation.report.diagnosis import Diagnosis, Finding, listed, percent
from lightning_saturation.saturation.report.windows import saturation_series
from lightning_saturation.stopping.settled import SettledRule, profile_changes

if TYPE_CHECKING:
    from lightning_saturation.saturation.report.report import SaturationReport

PAPER = "Shenk et al., Spectral Analysis of Latent Representations"
MEASURED_AT = 0.99
"""The explained variance at which the paper's 45 % was read off."""
OURS = "docs/diagnosis.md"
"""What the runs of this package say of a rule."""


class Limits(NamedTuple):
    """The thresholds of the rules; ``SaturationReport.diagnose`` documents them."""

    average_above: float
    wide_below: float
    tail_below: float
    tail_layers: int
    tail_drop: float
    bottleneck_above: float


def alike(report: SaturationReport) -> list[str]:
    """Return the layers in the average whose rows are of the kind of the last one's: others do not compare with it."""
    inner = report.inner_layers
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


def free(report: SaturationReport, name: str) -> bool:
    """Return whether the inputs of a layer leave room for as many directions as it has features.

    The averages of a convolution over positions have hardly more directions than it has input channels, and a linear
    layer that widens has as many as it has inputs: however wide they are, such layers look empty.
    """
    layer = report.layers[name]
    return not layer.reach < layer.features


def too_few_samples(report: SaturationReport) -> Finding | None:
    """Return the layers whose samples cannot span their features, if any."""
    short = {name: layer for name, layer in report.layers.items() if layer.too_few_samples and layer.rows != "none"}
    if not short:
        return None
    needed = max(layer.features for layer in short.values()) + 1
    parts = [f"{name}: {layer.samples} for {layer.features} features" for name, layer in short.items()]
    what = f"{len(short)} of {len(report.layers)} layers saw no more rows than they have features, which caps their"
    what += f" saturation ({listed(tuple(parts))})"
    advice = f"measure over at least {needed} rows a window, better several times as many"
    label = f"too few samples in {len(short)} layers"
    broken = [name for name, layer in short.items() if layer.samples + layer.skipped > layer.features]
    if broken:  # more rows would not help
        what += f"; {short[broken[0]].skipped} rows of {broken[0]} hold NaN or infinity and are left out"
        advice = f"look for where NaN or infinity comes from; {broken[0]} is the first layer that puts it out"
        label = f"NaN or infinity in {len(broken)} layers"
    return Finding(
        "too few samples",
        what,
        tuple(short),
        {"needed": needed, "samples": min(layer.samples for layer in short.values())},
        "a covariance of n samples has at most rank n - 1",
        advice,
        "certain",
        label,
    )


def too_narrow(report: SaturationReport, windows: Sequence[SaturationReport], above: float) -> Finding | None:
    """Return a finding if the average saturation is above ``above`` even with missing layers counted as 0."""
    if not _surely_above(report, above):
        return None
    always = len(windows) > 1 and windows[0].epoch == 0 and all(_surely_above(window, above) for window in windows)
    since = ", in every window since the first" if always else ""
    return Finding(
        "too narrow",
        f"layers use {percent(report.average)} of their features on average, more than {percent(above)}{since}",
        report.inner_layers,
        {"average": report.average, "threshold": above, "windows": len(windows) if always else 1},
        f"{PAPER}, section 3.4, figure 9, and 3.5, figure 11; {OURS}",
        "try twice the width, which helps more than more layers",
        "likely",
        "too narrow",
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
        "tail",
        f"the last {length} of {len(inner)} layers use at most {percent(highest)} of their features, after a peak of "
        f"{percent(peak)} ({listed(low)})",
        low,
        {"highest": highest, "peak": peak, "threshold": below, "layers": length},
        f"{PAPER}, section 3.5, figures 1 and 10; the threshold is a choice of this package; {OURS}",
        "try the network without them, or with fewer features there",
        "likely",
        f"a tail of {length} layers",
    )


def too_wide(report: SaturationReport, below: float) -> Finding | None:
    """Return the layers that could hold more, if they are below ``below`` on average."""
    able = tuple(name for name in report.inner_layers if free(report, name))
    average = math.fsum(at_most(report, name) for name in able) / max(len(able), 1)
    if not able or average >= below:
        return None
    are = "uses" if len(able) == 1 else "use"
    return Finding(
        "too wide",
        f"{listed(able)} {are} {percent(average)} of their features{' on average' if len(able) > 1 else ''}, less than "
        f"{percent(below)}".replace("their", "its" if len(able) == 1 else "their"),
        able,
        {"average": average, "threshold": below},
        f"a choice of this package; {OURS}",
        "try half the width there, which is cheaper and often no worse",
        "possible",
        "too wide",
    )


def bottlenecks(report: SaturationReport, above: float) -> list[Finding]:
    """Return the layers that lie at least ``above`` over both neighbours, as far as these could be as high."""
    names, inner = list(report.layers), report.inner_layers
    findings = []
    for before, name, after in zip(names, names[1:], names[2:], strict=False):
        around = max(at_most(report, beside) if free(report, beside) else 1.0 for beside in (before, after))
        here, kinds = at_least(report, name), {report.layers[each].rows for each in (before, name, after)}
        if name not in inner or len(kinds) > 1 or here - around < above:
            continue
        findings.append(
            Finding(
                "bottleneck",
                f"{name} uses {percent(here)} of its {report.layers[name].features} features, its neighbours at most "
                f"{percent(around)}",
                (name,),
                {"saturation": here, "neighbours": around, "threshold": above},
                f"{PAPER}, section 3.2, figure 2; the comparison with the neighbours is a choice of this package",
                "try more features there first",
                "possible",
                f"bottleneck {name}",
            )
        )
    return findings


def still_moving(windows: Sequence[SaturationReport]) -> str | None:
    """Return a note if the profile has moved lately, as far as ``windows``, the last of them at the end, can tell."""
    rule = SettledRule()
    changes = profile_changes(saturation_series(windows, windows[-1].inner_layers), window=rule.window)
    if not changes or not changes[-1] >= rule.tolerance:
        return None
    return f"the profile has moved by {changes[-1]:.3f} in the last {rule.window} windows: it may not stay as it is"


def judge(report: SaturationReport, history: Sequence[SaturationReport], limits: Limits) -> Diagnosis:
    """Return what all rules together say within ``limits``; ``ValueError`` where these are out of range."""
    for name in ("average_above", "wide_below", "tail_below"):
        if not 0.0 <= (value := getattr(limits, name)) <= 1.0:
            raise ValueError(f"Expected `{name}`, a saturation, in [0, 1], got {value}.")
    for name in ("bottleneck_above", "tail_drop"):
        if not (value := getattr(limits, name)) > 0:
            raise ValueError(f"Expected `{name}` above 0, got {value}.")
    if limits.tail_layers < 1:
        raise ValueError(f"Expected `tail_layers` of at least 1, got {limits.tail_layers}.")
    same = [each for each in history if each.stage == report.stage and not each.partial]
    windows = [*(each for each in same if (each.epoch, each.step) < (report.epoch, report.step)), report]
    few = too_few_samples(report)
    narrow = None
    notes = [still_moving(windows)]
    if report.delta > MEASURED_AT:
        notes.append(f"too narrow: a rule for delta up to {MEASURED_AT}, this is delta {report.delta:g}")
    else:
        narrow = too_narrow(report, windows, limits.average_above)
        if report.average > limits.average_above and narrow is None:
            average = f"{report.average:.2f} is above {limits.average_above:.2f}"
            notes.append(f"too narrow: the average {average}, but not for sure: layers are missing or sketched")
    low = tail(report, limits.tail_below, limits.tail_layers, limits.tail_drop)
    findings = [narrow, *bottlenecks(report, limits.bottleneck_above), low, too_wide(report, limits.wide_below)]
    mostly = few is not None and 2 * len(few.layers) >= len(report.layers)
    findings = [few, *findings] if mostly else [*findings, few]
    made = tuple(finding for finding in findings if finding is not None)
    return Diagnosis(report.stage, report.epoch, report.average, made, tuple(note for note in notes if note))


def _surely_above(report: SaturationReport, above: float) -> bool:
    inner = report.inner_layers
    return math.fsum(at_least(report, name) for name in inner) / max(len(inner), 1) > above
