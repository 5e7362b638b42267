"""Watch the eigenvalues of a small SqueezeNet's layers, as operators on feature maps, while it trains.

    python examples/eigenvalue_decay.py                         scikit-learn's digits, about a minute
    python examples/eigenvalue_decay.py --data photos.zip --size 32 --limit 5000 --width 0.5
    python examples/eigenvalue_decay.py --published             one layer of the paper at initialisation, minutes

The learning rate falls to a tenth at two thirds of the epochs. Leaves histograms.png (before the first and after the
last epoch), norms.png and evolution.png in the current folder, and prints a table.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
from common import Classifier, ProgressBar, images, quiet
from common.squeeze import squeezenet
from lightning import Trainer, seed_everything
from torch import nn

from lightning_saturation import SpectrumMonitor
from lightning_saturation.functional import LayerOperator, eigenvalue_histogram
from lightning_saturation.operators.plots import evolution_figure, histogram_figure, norms_figure


class Steps(Classifier):
    """The classifier by plain SGD with momentum, whose learning rate falls once to a tenth."""

    def __init__(self, network: nn.Module, classes: int, *, learning_rate: float, drop: int) -> None:
        super().__init__(network, classes, learning_rate=learning_rate)
        self.drop = drop

    def configure_optimizers(self) -> dict:
        optimizer = torch.optim.SGD(self.parameters(), lr=self.learning_rate, momentum=0.9, weight_decay=5e-4)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.MultiStepLR(optimizer, [self.drop])}


def main() -> int:
    options = _arguments()
    quiet()
    if options.published:
        return _published(options.published)
    try:
        data = images(options.data, limit=options.limit, size=options.size or (16 if options.data is None else 32))
        seed_everything(0, verbose=False)
        network = squeezenet(data.shape, len(data.classes), width=options.width)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2

    drop = options.drop or max(1, 2 * options.epochs // 3)
    monitor = SpectrumMonitor(every_n_epochs=options.every, seconds=options.seconds, bins=options.bins)
    trainer = Trainer(
        max_epochs=options.epochs,
        callbacks=[monitor, ProgressBar()],
        logger=False,
        accelerator="cpu",
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    start = time.perf_counter()
    model = Steps(network, len(data.classes), learning_rate=options.learning_rate, drop=drop)
    trainer.fit(model, data.train_loader(options.batch_size, seed=0), data.test_loader())
    accuracy = float(trainer.callback_metrics["val/accuracy"])
    seconds = time.perf_counter() - start
    print(f"\nSqueezeNet on {data}: accuracy {accuracy:.3f}, learning rate / 10 after epoch {drop}, {seconds:.0f} s")
    _show(monitor, options.out)
    return 0


def _show(monitor: SpectrumMonitor, out: Path) -> None:
    reports = monitor.reports
    print(f"\n{reports[0]}\n\n{reports[-1]}\n")
    layers = [name for name in reports[-1].layers if "3x3" in name or "conv1" in name]
    pictures = {
        "histograms-before.png": histogram_figure(reports[0], layers, most=6),
        "histograms.png": histogram_figure(reports[-1], layers, most=6),
        "norms.png": norms_figure(reports, layers),
        "evolution-first.png": evolution_figure(reports, layers[0], most=4),
        "evolution.png": evolution_figure(reports, layers[-1], most=4),
    }
    for name, figure in pictures.items():
        figure.savefig(out / name, dpi=80)
        print(f"Picture:  {out / name}")


def _published(seeds: int) -> int:
    """Compare the last 3×3 expand layer of squeezenet1_1, 64 → 256 channels on 13×13 maps, with what is published."""
    for seed in range(seeds):
        layer = nn.Conv2d(64, 256, 3, padding=1)
        nn.init.kaiming_uniform_(layer.weight, generator=torch.Generator().manual_seed(seed))
        start = time.perf_counter()
        found = eigenvalue_histogram(LayerOperator(layer, (64, 13, 13)))
        seconds = time.perf_counter() - start
        print(
            f"seed {seed}: largest eigenvalue {found.largest:.2f} (published: 17.61), largest bar"
            f" {found.counts.max():.0f} of {found.size}, {found.products} products in {seconds:.0f} s"
        )
        small = LayerOperator(layer, (64, 6, 6))
        exact = eigenvalue_histogram(small, method="exact")
        ours = eigenvalue_histogram(small, method="stochastic")
        away = float((exact.counts - ours.counts).cumsum(0).abs().max()) / exact.size
        print(
            f"        on 6×6 maps, where {exact.size} exact eigenvalues are cheap: largest {exact.largest:.4f} exact,"
            f" {ours.largest:.4f} here; cumulative shares within {away:.4f}"
        )
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder or zip of class/image files; without it scikit-learn's digits")
    parser.add_argument("--limit", type=int, help="use so many images in all")
    parser.add_argument("--size", type=int, help="side of the images in pixels (digits: 16, files: 32 unless told)")
    parser.add_argument("--width", type=float, default=0.5, help="factor on every layer's channels")
    parser.add_argument("--epochs", type=int, default=18)
    parser.add_argument("--drop", type=int, help="epochs at the first learning rate (two thirds of all unless told)")
    parser.add_argument("--learning-rate", type=float, default=0.05)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--every", type=int, default=1, help="epochs between two measurements")
    parser.add_argument("--bins", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=60.0, help="time budget of one measurement")
    parser.add_argument("--published", type=int, nargs="?", const=3, metavar="SEEDS", help="compare, do not train")
    parser.add_argument("--out", type=Path, default=Path.cwd(), help="where pictures go")
    options = parser.parse_args()
    if min(options.epochs, options.every, options.batch_size) < 1 or options.width <= 0 or options.seconds <= 0:
        parser.error("expected epochs, every, batch-size, width and seconds above 0")
    options.out.mkdir(parents=True, exist_ok=True)
    return options


if __name__ == "__main__":
    sys.exit(main())
