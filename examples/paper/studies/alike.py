"""Which networks learn the same: those that generalise or that memorise, wide ones or narrow ones, other families."""

from __future__ import annotations

from itertools import combinations
from typing import Any

from lightning_saturation import compare_representations
from paper.measure import inner_layers
from paper.settings import Settings
from paper.studies.bench import Bench, family
from paper.task import scores


def seeds(bench: Bench, of: tuple[Settings, ...]) -> None:
    """Compare every two seeds of each run, layer by layer, on test samples that neither has seen."""
    families: dict[str, list[Settings]] = {}
    for each in of:
        families.setdefault(family(each), []).append(each)
    for name, members in families.items():
        for pair in combinations(members, 2):
            bench.part(f"{name} {pair[0].seed}-{pair[1].seed}", lambda pair=pair: _compared(bench, pair))


def architectures(bench: Bench, of: tuple[Settings, ...]) -> None:
    """Compare two families layer by layer, by DFT-CCA (figure 7)."""
    bench.part("matrix", lambda: _dft(bench, of))


def _compared(bench: Bench, pair: tuple[Settings, ...]) -> dict[str, Any]:
    first, second = (bench.trained(each) for each in pair)
    test = bench.test(pair[0])
    found: dict[str, Any] = {
        "accuracy": [scores(each.trained, test, each.settings)["accuracy"] for each in (first, second)]
    }
    options = {"layers": inner_layers(first.trained), "progress": False}
    for method in ("svcca", "pwcca", "cka"):
        for where, batches in (("train", first.probes), ("test", first.test)):
            matrix = compare_representations(first.trained, second.trained, batches, method=method, **options)
            found[f"{method} {where}"] = matrix.diagonal
    return found


def _dft(bench: Bench, of: tuple[Settings, ...]) -> dict[str, Any]:
    first, second = (bench.trained(each) for each in of)
    names = [inner_layers(each.trained) for each in (first, second)]
    matrix = compare_representations(
        first.trained,
        second.trained,
        first.probes,
        method="dft_cca",
        layers=names[0],
        other_layers=names[1],
        resize=True,
        progress=False,
    )
    return {"rows": list(matrix.rows), "columns": list(matrix.columns), "values": matrix.values.tolist()}
