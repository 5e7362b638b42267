"""Draw every figure for which there are finished runs or studies.

python examples/paper/figures/draw.py --out docs/figures
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # examples/, where `paper` is

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from paper.figures import dense, dimension, directions, during, grid, others, pairs
from paper.figures.records import Record, load
from paper.record import read
from paper.studies.plan import studies

FIGURES: dict[str, Callable[[list[Record]], Figure | None]] = {
    "saturation_dense": dense.accuracy,
    "saturation_dense_training": dense.training,
    "saturation_scatter": grid.scatter,
    "saturation_losses": grid.losses,
    "saturation_profiles": partial(grid.profiles, data="photos"),
    "saturation_profiles_cat_dog": partial(grid.profiles, data="cat-dog"),
    "saturation_problems": grid.problems,
    "saturation_evolution": grid.evolution,
    "saturation_autoencoder": others.autoencoder,
    "saturation_labels": others.labels,
    "dimension_profiles": dimension.profiles,
    "dimension_accuracy": dimension.accuracy,
    "directions": directions.accuracy,
    "operators": others.operators,
}

STUDIES: dict[str, tuple[str, Callable[[Mapping[str, Any]], Figure]]] = {
    "toy": ("toy", pairs.toy),
    "pair_directions": ("pair", pairs.directions),
    "pair_compression": ("pair", pairs.compression),
    "pair_units": ("pair", pairs.units),
    "dynamics": ("dynamics", during.dynamics),
    "dynamics_classes": ("dynamics", during.classes),
    "freezing": ("freezing", during.freezing),
    "architectures": ("architectures", during.architectures),
    "widths": ("widths", during.alike),
    "memorising": ("memorising", during.alike),
    "pruned": ("pruned", during.pruned),
    "drop": ("drop", during.drop),
}
"""By figure the kind of study, of which the largest that is finished is drawn."""


def main() -> int:
    options = _arguments()
    records = load(options.results)
    answered = {study.name: read(options.results / "studies" / f"{study.name}.json") for study in studies()}
    by_kind = {record["kind"]: record for record in answered.values() if record.get("finished")}  # the largest is last
    options.out.mkdir(parents=True, exist_ok=True)
    drawn = {name: draw(records) for name, draw in FIGURES.items()}
    drawn |= {name: draw(by_kind[kind]) if kind in by_kind else None for name, (kind, draw) in STUDIES.items()}
    for name, figure in drawn.items():
        if figure is None:
            print(f"{name}: no finished run yet")
            continue
        figure.savefig(options.out / f"{name}.png", dpi=90)
        plt.close(figure)
        print(options.out / f"{name}.png")
    return 0


def _arguments() -> argparse.Namespace:
    here = Path(__file__).resolve().parents[1]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=here / "results", help="where the records are")
    parser.add_argument("--out", type=Path, default=Path("docs/figures"), help="where the pictures go")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
