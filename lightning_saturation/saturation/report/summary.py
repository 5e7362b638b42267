"""What a stage came to, in single values: to sort, filter and sweep by."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lightning_saturation.saturation.report.report import SaturationReport


def summary(reports: Sequence[SaturationReport]) -> dict[str, float | int | str]:
    """Return what the last of ``reports``, windows of one stage and oldest first, says in values that are known.

    ``verdict`` is a sentence; ``max`` is the highest saturation of a layer in the average; of each kind of finding
    there is how many layers it names, 0 for none.
    """
    last = reports[-1]
    inner = [s for name, s in last.saturation.items() if name not in last.output_layers and not math.isnan(s)]
    diagnosis = last.diagnose(history=reports)
    named = {
        key: {name for f in diagnosis.findings if f.kind == kind for name in f.layers} for key, kind in _COUNTED.items()
    }
    counts = {key: len(layers) for key, layers in named.items()}
    return {"verdict": diagnosis.verdict, **({"max": max(inner)} if inner else {}), **counts}


_COUNTED = {
    "too_narrow": "too narrow",
    "too_wide": "too wide",
    "tail_layers": "tail",
    "bottlenecks": "bottleneck",
    "too_few_samples": "too few samples",
}
