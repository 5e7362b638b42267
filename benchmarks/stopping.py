"""Rules that stop a training, judged on recorded runs: how often they stop, what they save, what it costs.

    python benchmarks/stopping.py                         # the 17 series in ../shared/reference/stopping_series
    python benchmarks/stopping.py FOLDER --no-page       # other series, printed only

Writes the tables between the marks of docs/stopping.md. A stop after epoch t counts with the mean accuracy of the three
epochs up to t, against that of the last three of the run; all accuracies are those on validation data.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from interleaved import table

from lightning_saturation.functional import settled

PAGE = Path(__file__).parents[1] / "docs" / "stopping.md"
SERIES = Path(__file__).parents[2] / "shared" / "reference" / "stopping_series"
Rule = Callable[[dict[str, Any]], int | None]


def profile_rule(stage: str = "train", **options: Any) -> Rule:
    """Return the package's rule: the profile has settled."""

    def stop(run: dict[str, Any]) -> int | None:
        seen = run[stage]
        series = {name: values for name, values in seen["continuous_saturation"].items() if name not in seen["output"]}
        return settled(series, learning_rates=seen["lr"], **options)

    return stop


def early_stopping(patience: int) -> Rule:
    """Return Lightning's ``EarlyStopping("val/loss", patience=patience)``."""

    def stop(run: dict[str, Any]) -> int | None:
        best, waited = math.inf, 0
        for epoch, row in enumerate(run["rows"]):
            best, waited = (row["val/loss"], 0) if row["val/loss"] < best else (best, waited + 1)
            if waited >= patience:
                return epoch
        return None

    return stop


def loss_plateau(run: dict[str, Any], *, fall: float = 0.05) -> int | None:
    """Return where the training loss has fallen by less than ``fall`` in 5 epochs, three epochs in a row."""
    losses, calm = [row["train/loss"] for row in run["rows"]], 0
    for epoch in range(5, len(losses)):
        calm = calm + 1 if losses[epoch] >= (1 - fall) * losses[epoch - 5] else 0
        if calm == 3:
            return epoch
    return None


def at_share(share: float) -> Rule:
    """Return the rule that stops after ``share`` of the epochs."""
    return lambda run: round(share * len(run["rows"])) - 1


RULES: dict[str, Rule] = {
    "**the profile has settled (default)**": profile_rule(),
    "… of the validation stage": profile_rule("val"),
    "… `patience=2`": profile_rule(patience=2),
    "… `patience=4`": profile_rule(patience=4),
    "… `window=3`": profile_rule(window=3),
    "… `window=8`": profile_rule(window=8),
    "… `tolerance=0.005`": profile_rule(tolerance=0.005),
    "… `tolerance=0.02`": profile_rule(tolerance=0.02),
    "always after 60 % of the epochs": at_share(0.6),
    "training loss fell by less than 5 % in 5 epochs, three times": loss_plateau,
    '`EarlyStopping("val/loss", patience=3)`': early_stopping(3),
    '`EarlyStopping("val/loss", patience=10)`': early_stopping(10),
}


def judged(runs: Sequence[dict[str, Any]], rule: Rule) -> list[tuple[int | None, float, float]]:
    """Return for each run the epoch of the stop, the share of epochs saved, and the change of accuracy."""
    answers = []
    for run in runs:
        accuracy = [row["val/accuracy"] for row in run["rows"]]
        stop = rule(run)
        last = len(accuracy) - 1 if stop is None else stop
        change = fmean(accuracy[max(0, last - 2) : last + 1]) - fmean(accuracy[-3:])
        answers.append((stop, 1 - (last + 1) / len(accuracy), change))
    return answers


def by_rule(runs: Sequence[dict[str, Any]]) -> str:
    """Return the table of rules."""
    lines = []
    for name, rule in RULES.items():
        answers = judged(runs, rule)
        stops, changes = sum(stop is not None for stop, _, _ in answers), [change for _, _, change in answers]
        saved = fmean(share for _, share, _ in answers)
        lines.append(
            (name, f"{stops} of {len(runs)}", f"{saved:.0%}", f"{fmean(changes):+.3f}", f"{min(changes):+.3f}")
        )
    return table(lines, ("rule", "stops", "epochs saved", "accuracy, mean", "accuracy, worst"))


def by_run(runs: Sequence[dict[str, Any]]) -> str:
    """Return where the default stops each run."""
    lines = []
    for run, (stop, _, change) in zip(runs, judged(runs, profile_rule()), strict=True):
        about = run["settings"]
        epochs = len(run["rows"])
        after = "goes on" if stop is None else f"{stop + 1}"
        schedule = about.get("sched") or about["schedule"]
        lines.append((about["name"], schedule, str(epochs), after, f"{change:+.3f}"))
    return table(lines, ("run", "schedule", "epochs", "stops after", "accuracy"))


def main() -> None:
    """Write the tables into the page, and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=SERIES)
    parser.add_argument("--no-page", action="store_true", help="print only")
    options = parser.parse_args()
    runs = [json.loads(path.read_text()) for path in sorted(options.folder.glob("*.json"))]
    if not runs:
        raise SystemExit(f"No recorded runs in {options.folder}.")
    text = f"{by_rule(runs)}\n\n{by_run(runs)}"
    print(text)
    if not options.no_page:
        head, _, rest = PAGE.read_text().partition("<!-- tables -->\n")
        _, _, tail = rest.partition("<!-- end of tables -->\n")
        PAGE.write_text(f"{head}<!-- tables -->\n{text}\n<!-- end of tables -->\n{tail}")


if __name__ == "__main__":
    main()
