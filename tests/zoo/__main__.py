"""Measure every network of the zoo and write the table ``docs/networks.md``: ``python -m tests.zoo``.

With names, ``python -m tests.zoo "GPT-2" Llama``, it measures those, and prints lines of the table and what is said.
"""

import sys
from collections import Counter
from importlib.metadata import version
from pathlib import Path

from tests.zoo.check import Result, check
from tests.zoo.networks import every

PAGE = Path(__file__).parents[2] / "docs" / "networks.md"
PACKAGES = ("torch", "transformers", "diffusers", "torch-geometric", "peft")
HEAD = """# Networks

What `measure_saturation` sees in {count} networks with random weights, by default and in one call, against what is true
of them: which entries belong to a sample is found by changing one sample of a batch, which layers feed which by adding
noise to what one puts out, and spectra by NumPy from rows that hooks of PyTorch collect. Nothing of it shares code with
the package. `ZOO=all pytest tests/zoo` checks it (`pip install -e .[zoo]`), and `python -m tests.zoo` writes this page,
last with {versions}.

*Layers* are those measured, of those in the network. *Weights* is `report.coverage`: their share of all parameters of
two or more dimensions, embeddings aside. *Order* and *outputs* agree with the interventions where they say yes, *rows*
are what `report.layers[name].rows` says, and so do their numbers, features and eigenvalues (relative error below 1e-6).
"Positions" are more rows than samples: tokens, windows, or a layer that runs several times; "none" is one row a batch,
or the same whatever the data.

| network | layers | weights | order | outputs | rows | remarks |
| --- | --- | --- | --- | --- | --- | --- |
"""


def row(name: str, result: Result) -> str:
    """Return one line of the table."""
    report = result.report
    wrong = {text.partition(":")[0].partition(" of ")[0] for text in result.wrong}
    kinds = Counter(layer.rows for layer in report.layers.values())
    share = "" if report.coverage is None else f"{report.coverage:.0%}"
    outputs = ", ".join(f"`{_tail(each)}`" for each in report.output_layers[:2])
    more = f" and {len(report.output_layers) - 2} more" if len(report.output_layers) > 2 else ""
    rows = ", ".join(f"{count} {kind}" for kind, count in kinds.items()) if len(kinds) > 1 else next(iter(kinds), "")
    parts = [result.remark, *(f"**wrong**: {each}" for each in result.wrong), *map(_short, result.warned)]
    cells = [
        name,
        f"{len(report.layers)} of {result.modules}",
        share,
        "no" if "order" in wrong else "yes",
        f"{outputs}{more}" + (" (no)" if "outputs" in wrong else ""),
        rows + (" (no)" if wrong & {"rows", "samples", "features", "spectrum", "dimension", "layers"} else ""),
        "; ".join(filter(None, parts)),
    ]
    return f"| {' | '.join(cells)} |"


def _tail(name: str) -> str:
    return name if len(name) <= 28 else f"…{name[-27:]}"


def _short(warning: str) -> str:
    if warning.startswith("Only"):
        return f"says: of no known kind are {warning.partition('kind are ')[2].partition(':')[0]}"
    if warning.startswith("No saturation for"):
        return f"says: never called: {warning.count(chr(39)) // 2} layers"
    return f"says: {warning.partition('.')[0]}"


def show(names: list[str]) -> int:
    """Print what is seen of the networks called ``names``, and return whether anything is wrong."""
    results = {name: check(every()[name]) for name in names}
    for name, (report, _, _, _, warned, _) in results.items():
        said = [*warned, *(f"{layer}: {why}" for layer, why in report.left_out.items())]
        average = f"average {report.average:.3f} of {len(report.inner_layers)} layers"
        sys.stdout.write("\n    ".join([row(name, results[name]), average, *said]) + "\n")
    return any(result.wrong for result in results.values())


def main() -> int:
    if len(sys.argv) > 1:
        return show(sys.argv[1:])
    results = {}
    for name, build in every().items():
        results[name] = check(build)
        sys.stdout.write(f"{name}: {'; '.join(results[name].wrong) or 'as it is'}\n")
    versions = ", ".join(f"{each} {version(each)}" for each in PACKAGES)
    lines = [row(name, result) for name, result in results.items()]
    PAGE.write_text(HEAD.format(count=len(lines), versions=versions) + "\n".join(lines) + "\n", encoding="utf-8")
    return any(result.wrong for result in results.values())


if __name__ == "__main__":
    sys.exit(main())
