"""Write the tables of docs/evidence.md from the committed records.

    python examples/paper/evidence.py

Each claim's verdict follows from its number: it holds where the whole 95 % interval lies on the claimed side, does not
hold where it lies on the other, and is not decided here where fewer than two thirds of the planned kinds of runs are
there. Pictures are those that figures/draw.py has left beside the page. Where the further series are missing, the table
on stopping stays as it is.
"""

from __future__ import annotations

import argparse
import inspect
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # examples/, where `paper` is

from paper.figures.draw import FIGURES, STUDIES
from paper.figures.records import load
from paper.plan import plan
from paper.studies.plan import studies
from paper.worth import saturation_claims, spectral_claims, svcca_claims
from paper.worth.accuracies import accuracies
from paper.worth.changes import freezing, sizing
from paper.worth.claims import OPEN
from paper.worth.compression import compression
from paper.worth.ranking import ranking
from paper.worth.stopping import stopping
from paper.worth.tables import table, write

PAPERS = (saturation_claims, svcca_claims, spectral_claims)
ROOT = Path(__file__).resolve().parents[2]
SERIES = ROOT.parent / "shared" / "reference" / "stopping_series"
"""Seventeen more recorded runs, judged along where they are."""


def texts(results: Path, series: Path) -> dict[str, str]:
    """Return every table of the page by its mark."""
    records, answered = load(results), [json.loads(path.read_text()) for path in sorted(results.glob("studies/*.json"))]
    answered = [study for study in answered if study["finished"]]
    found: dict[str, str] = {
        "state": f"{len(records)} of {len(plan())} runs and {len(answered)} of {len(studies())} studies are there.",
        "accuracies": accuracies(records),
        "ranking": ranking(records),
        "sizing": sizing(answered),
        "freezing": freezing(answered),
        "compression": compression(records),
    }
    runs = [record.numbers for record in records if record.settings.task == "classify"]
    runs += [json.loads(path.read_text()) for path in sorted(series.glob("*.json"))]
    if series.exists():
        found["stopping"] = stopping(runs)
    rows = []
    for claim in [claim for paper in PAPERS for claim in paper.claims()]:
        verdict = claim.verdict(records, answered)
        says = f"{OPEN}: {verdict.basis.split(',')[0]}" if verdict.says == OPEN else verdict.says
        rows.append(
            (claim.paper, claim.text, f"{claim.counted}; `{claim.command}`", verdict.basis, verdict.number, says)
        )
    found["claims"] = table(rows, ("source", "claim", "what is counted", "n", "number (95 % interval)", "verdict"))
    return found


def pictures(folder: Path) -> str:
    """Return the pictures that are there, with what each of them shows."""
    shown = []
    for name, draw in {**FIGURES, **{name: draw for name, (_, draw) in STUDIES.items()}}.items():
        if (folder / f"{name}.png").exists():
            told = inspect.getdoc(getattr(draw, "func", draw)) or name
            shown.append(f"![{name}]({folder.name}/{name}.png)\n\n{told}")
    return "\n\n".join(shown)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path(__file__).resolve().parent / "results")
    parser.add_argument("--series", type=Path, default=SERIES, help="further recorded runs to judge stopping on")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "evidence.md")
    options = parser.parse_args()
    found: dict[str, Any] = texts(options.results, options.series)
    found["pictures"] = pictures(options.page.parent / "figures")
    write(options.page, found)
    print("\n\n".join(f"## {name}\n{text}" for name, text in found.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
