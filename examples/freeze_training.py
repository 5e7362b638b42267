"""Train the same network with and without freeze training, from the same seeds (SVCCA, figure 5).

    python examples/freeze_training.py                             scikit-learn's digits, about a minute
    python examples/freeze_training.py --data photos.zip --model vgg11 --width 0.25 --schedule converged

Leaves freeze_training.png in --out and prints accuracy and seconds of both.
"""

from __future__ import annotations

import sys

import matplotlib.pyplot as plt
import numpy as np
from common import images, quiet
from common.training import Run, arguments, train

from lightning_saturation import FreezeTraining, SimilarityMonitor


def main() -> int:
    parser = arguments(__doc__, epochs=12)
    parser.add_argument("--schedule", default="linear", choices=("linear", "converged"))
    parser.add_argument("--tolerance", type=float, default=0.05, help="of the converged schedule")
    parser.add_argument("--runs", type=int, default=3, help="seeds to average over")
    options = parser.parse_args()
    quiet()
    data = images(options.data, limit=options.limit, size=options.size)
    plain: list[Run] = []
    frozen: list[Run] = []
    for seed in range(options.seed, options.seed + options.runs):
        freeze = FreezeTraining(options.schedule, tolerance=options.tolerance)
        watch = [SimilarityMonitor(samples=500)] if options.schedule == "converged" else []
        # In turns, so that a busy machine is busy for both; the monitor's own time belongs to the schedule.
        plain.append(train(data, options, seed=seed))
        frozen.append(train(data, options, seed=seed, callbacks=[*watch, freeze]))
        steps = len(data.train_loader(options.batch_size))
        print(
            f"seed {seed}: accuracy {plain[-1].accuracy:.3f} -> {frozen[-1].accuracy:.3f},"
            f" {plain[-1].seconds:.1f} s -> {frozen[-1].seconds:.1f} s,"
            f" frozen after epochs {[round(step / steps, 1) for step, _ in freeze.history]}"
        )
    ratio = np.median([f.seconds / p.seconds for f, p in zip(frozen, plain, strict=True)])
    mean = [np.mean([run.accuracy for run in runs]) for runs in (plain, frozen)]
    print(f"{options.model} on {data}: accuracy {mean[0]:.3f} -> {mean[1]:.3f}, time x {ratio:.2f} (median of ratios)")
    _picture(plain, frozen, [step / steps for step, _ in freeze.history], ratio).savefig(
        options.out / "freeze_training.png", dpi=100
    )
    print(f"Picture: {options.out}/freeze_training.png")
    return 0


def _picture(plain: list[Run], frozen: list[Run], freezes: list[float], ratio: float) -> plt.Figure:
    figure, axes = plt.subplots(figsize=(6.4, 4), layout="constrained")
    for number, epoch in enumerate(freezes):
        axes.axvline(epoch, color="0.8", linestyle=":", label="a layer is frozen" if number == 0 else None)
    for runs, label, style in ((plain, "all layers learn", "C0-"), (frozen, "freeze training", "C1--")):
        histories = np.array([run.history for run in runs])
        epochs = np.arange(1, histories.shape[1] + 1)
        axes.plot(epochs, histories.mean(0), style, label=label)
        axes.fill_between(epochs, histories.min(0), histories.max(0), color=style[:2], alpha=0.15, linewidth=0)
    axes.set(
        xlabel="epoch",
        ylabel="accuracy on test images",
        title=f"Freeze training: {len(plain)} seeds (band: min to max), time × {ratio:.2f}",
    )
    axes.legend(fontsize=8)
    return figure


if __name__ == "__main__":
    sys.exit(main())
