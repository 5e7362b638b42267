"""How few directions of a layer carry the task, and what two thinner layers in its place cost (SVCCA, figure 2, §4.4).

    python examples/compress.py                                    scikit-learn's digits, about a minute
    python examples/compress.py --data photos.zip --model vgg11 --width 0.25

Two networks are trained from different seeds; SVCCA directions are those that both have. Leaves compress.png in --out.
"""

from __future__ import annotations

import sys

import matplotlib.pyplot as plt
import numpy as np
from common import images, quiet
from common.training import Run, accuracy, arguments, train

from lightning_saturation import compress, project_outputs, select_layers

STYLES = {"svcca": "C0-", "pca": "C1--", "active": "C2-.", "random": "C3:"}
LABELS = {
    "svcca": "SVCCA directions",
    "pca": "PCA directions",
    "active": "most active neurons",
    "random": "random neurons",
}


def main() -> int:
    options = arguments(__doc__, epochs=10).parse_args()
    quiet()
    data = images(options.data, limit=options.limit, size=options.size)
    first, second = (train(data, options, seed=options.seed + i) for i in range(2))
    probes = [batch for batch, _ in data.train_loader(256, seed=0)][:8]
    names = list(select_layers(first.model))[:-1]  # the output layer is what we want to keep
    shown = [names[i] for i in sorted({0, len(names) // 2, len(names) - 1})]
    figure, axes = plt.subplots(1, len(shown), figsize=(4 * len(shown), 3.8), sharey=True, layout="constrained")
    for pane, name in zip(axes, shown, strict=True):
        for basis in STYLES:
            counts, values = _curve(first, second, probes, data, name, basis)
            pane.plot(counts, values, STYLES[basis], marker="o", markersize=3, label=LABELS[basis])
            print(
                f"{name:10s} {LABELS[basis]:20s}",
                "  ".join(f"{k}: {v:.3f}" for k, v in zip(counts, values, strict=True)),
            )
        pane.axhline(first.accuracy, color="0.6", linewidth=1)
        pane.set(xlabel=f"directions of {name} kept (of {counts[-1]})", xscale="log")
        pane.set_xticks(counts, [str(k) for k in counts])
        pane.minorticks_off()
    axes[0].set_ylabel("accuracy on test images, not retrained")
    axes[0].legend(fontsize=8)
    figure.suptitle("Output of one layer restricted to a few directions (line: unrestricted)", fontsize=10)
    figure.savefig(options.out / "compress.png", dpi=100)

    print(f"\nall layers at once, {options.model} on {data}, accuracy {first.accuracy:.3f}:")
    for delta in (0.999, 0.99, 0.95, 0.9):
        undo = compress(first.model, probes, delta=delta, basis="pca", exclude=[list(select_layers(first.model))[-1]])
        print(
            f"  delta {delta:5.3f}: accuracy {accuracy(first.model, data):.3f},"
            f" parameters x {undo.parameters_after / undo.parameters_before:.2f},"
            f" FLOPs x {undo.flops_after / undo.flops_before:.2f}"
        )
        undo()
    print(f"Picture: {options.out}/compress.png")
    return 0


def _curve(first: Run, second: Run, probes: list, data, name: str, basis: str) -> tuple[list[int], list[float]]:
    features = _features(first, name)
    counts = sorted({min(k, features) for k in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)} | {features})
    seeds = range(5) if basis == "random" else range(1)
    values = []
    for k in counts:
        found = []
        for seed in seeds:
            options = {"ranks": k, "basis": basis, "layers": [name], "seed": seed, "reference": second.model}
            with project_outputs(first.model, probes, **options):
                found.append(accuracy(first.model, data))
        values.append(float(np.mean(found)))
    return counts, values


def _features(run: Run, name: str) -> int:
    return run.model.get_submodule(name).weight.shape[0]


if __name__ == "__main__":
    sys.exit(main())
