"""See layers approach their final form while a network learns, and where class knowledge arises (SVCCA, figures 4, 6).

    python examples/learning_dynamics.py                           scikit-learn's digits, well under a minute
    python examples/learning_dynamics.py --data photos.zip --model vgg11 --width 0.25

Leaves learning_dynamics.png (layers during training × layers at the end), convergence.png (each epoch against the one
before) and class_similarity.png in --out.
"""

from __future__ import annotations

import sys

import matplotlib.pyplot as plt
import torch
from common import Images, images, quiet
from common.training import Run, arguments, train

from lightning_saturation import ClassSimilarity, SimilarityMonitor, capture


def main() -> int:
    options = arguments(__doc__, epochs=10).parse_args()
    quiet()
    data = images(options.data, limit=options.limit, size=options.size)
    monitor = SimilarityMonitor(samples=1000)
    run = train(data, options, callbacks=[monitor])
    print(f"{options.model} on {data}: accuracy {run.accuracy:.3f} after {run.seconds:.0f} s")
    dynamics = monitor.dynamics
    dynamics.plot().savefig(options.out / "learning_dynamics.png", dpi=100)
    for share, matrix in dynamics.panes.items():
        values = "  ".join(f"{value:.2f}" for value in matrix.diagonal.values())
        print(f"{100 * share:4.0f} % trained, each layer against its end: {values}")
    _convergence(monitor).savefig(options.out / "convergence.png", dpi=100)
    _classes(run, data).savefig(options.out / "class_similarity.png", dpi=100)
    print(f"Pictures: {options.out}/learning_dynamics.png, convergence.png, class_similarity.png")
    return 0


def _convergence(monitor: SimilarityMonitor) -> plt.Figure:
    figure, axes = plt.subplots(figsize=(6.4, 4), layout="constrained")
    for (name, values), colour in zip(monitor.series.items(), _colours(len(monitor.series)), strict=True):
        axes.plot([epoch + 1 for epoch in monitor.epochs], values, "o-", markersize=3, color=colour, label=_short(name))
    axes.set(xlabel="epoch", ylabel="SVCCA similarity with the epoch before", title="Convergence of each layer")
    axes.legend(fontsize=8)
    return figure


def _classes(run: Run, data: Images) -> plt.Figure:
    """Draw how strongly each layer correlates with each class's logit."""
    metrics: dict[str, ClassSimilarity] = {}
    rows: dict[str, torch.Tensor] = {}
    with torch.no_grad(), capture(run.model, rows.__setitem__):
        for batch, _ in data.test_loader():
            logits = run.model(batch)
            for name, x in rows.items():
                metrics.setdefault(name, ClassSimilarity()).update(x, logits)
    curves = torch.stack([metric.compute() for metric in metrics.values()])
    figure, axes = plt.subplots(figsize=(6.4, 4), layout="constrained")
    for index, label in enumerate(data.classes):
        axes.plot(curves[:, index], "o-", markersize=3, color=plt.colormaps["tab10"](index % 10), label=label)
    axes.set_xticks(range(len(metrics)), metrics, rotation=90, fontsize=8)
    axes.set(xlabel="layer", ylabel="canonical correlation with the logit", title="Where class knowledge arises")
    axes.legend(fontsize=8, title="class")
    return figure


def _short(name: str) -> str:
    return name.removeprefix("network.")


def _colours(count: int) -> list:
    return [plt.colormaps["plasma"](0.85 * i / max(count - 1, 1)) for i in range(count)]


if __name__ == "__main__":
    sys.exit(main())
