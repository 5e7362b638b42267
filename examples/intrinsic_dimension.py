"""How many dimensions the data fills in every layer, before and after training, and what that says about accuracy.

    python examples/intrinsic_dimension.py                                    scikit-learn's digits, a few minutes
    python examples/intrinsic_dimension.py --data photos.zip --limit 6000 --model vgg11:0.25

Leaves dimension.png (the profile of one network, trained and with random weights), dimension_epochs.png (the same
layers over its epochs) and dimension_accuracy.png (several networks) in the current folder.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from common import Classifier, Images, images, network, quiet
from lightning import Callback, Trainer, seed_everything
from matplotlib.figure import Figure
from torch import Tensor, nn

from lightning_saturation import DimensionMonitor, measure_dimension
from lightning_saturation.dimension.plots import dimension_figure, dimension_history_figure
from lightning_saturation.drawing import canvas
from lightning_saturation.drawing.point_names import name_points

FAMILY = ("mlp:1", "cnn:0.5", "cnn:1", "vgg11:0.125", "vgg11:0.25", "vgg13:0.25", "vgg16:0.25")


def main() -> int:
    options = _arguments()
    quiet()
    torch.set_num_threads(options.threads or torch.get_num_threads())
    try:
        data = images(options.data, limit=options.limit, size=options.size)
        for name in (options.model, *options.networks):
            build(name, data)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{data}\n")
    options.out.mkdir(parents=True, exist_ok=True)
    profile(options.model, data, options)
    if options.networks:
        family(options.networks, data, options)
    return 0


def build(name: str, data: Images) -> nn.Sequential:
    """Return the network that ``name`` stands for: a kind and a width, such as ``vgg11:0.25``."""
    kind, _, width = name.partition(":")
    seed_everything(0, verbose=False)
    return network(kind, data.shape, len(data.classes), width=float(width or 1))


def checkpoints(model: nn.Module) -> list[str]:
    """Return where the representation is looked at: behind every activation, pooling and linear layer."""
    kinds = (nn.ReLU, nn.MaxPool2d, nn.AdaptiveAvgPool2d, nn.Linear)
    return [name for name, module in model.named_modules() if isinstance(module, kinds)]


def batches(data: Images) -> list[tuple[Tensor, Tensor]]:
    """Return the training images in one order, so that every run over them keeps the same ones."""
    return list(data.train_loader(256, seed=0))


def train(model: nn.Module, data: Images, options: argparse.Namespace, *callbacks: Callback) -> float:
    """Train ``model`` and return its accuracy on the test images."""
    trainer = Trainer(
        max_epochs=options.epochs,
        callbacks=[*callbacks],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=sys.stdout.isatty(),
    )
    loaders = data.train_loader(options.batch_size), data.test_loader()
    trainer.fit(Classifier(model, len(data.classes), augment=options.data is not None), *loaders)
    return float(trainer.callback_metrics["val/accuracy"])


def profile(name: str, data: Images, options: argparse.Namespace) -> None:
    """Show one network: TwoNN and PCA over depth, trained and with random weights."""
    model = build(name, data)
    monitor = DimensionMonitor([f"network.{layer}" for layer in checkpoints(model)], samples=options.samples)
    accuracy, epochs = train(model, data, options, monitor), monitor.reports
    report = measure_dimension(
        model,
        batches(data),
        layers=checkpoints(model),
        samples=options.samples,
        per_class=True,
        scales=True,
        baseline="random",
        progress=sys.stdout.isatty(),
    )
    print(f"{name}: accuracy {accuracy:.3f}\n\n{report}\n")
    assert report.last_hidden is not None
    scales = report.layers[report.last_hidden].scales
    told = ", ".join(f"{dimension:.1f} ± {error:.1f} on {points}" for points, dimension, error in scales)
    print(f"Scales of {report.last_hidden}: {told}")
    print("Last hidden layer by epoch:", ", ".join(f"{r.last_hidden_dimension:.1f}" for r in epochs), "\n")
    _save(dimension_figure(report), options.out / "dimension.png")
    _save(dimension_history_figure(epochs), options.out / "dimension_epochs.png")


def family(names: list[str], data: Images, options: argparse.Namespace) -> None:
    """Hold the dimension of the last hidden layer against accuracy, over several networks."""
    dimensions, accuracies = {}, {}
    for name in names:
        model = build(name, data)
        accuracies[name] = train(model, data, options)
        layers = checkpoints(model)
        report = measure_dimension(model, batches(data), layers=layers, samples=options.samples, progress=False)
        dimensions[name] = report.last_hidden_dimension
        features = report.layers[report.last_hidden or ""].features
        print(
            f"{name:12} last hidden {dimensions[name]:5.1f} of {features:4}   accuracy {accuracies[name]:.3f}",
            flush=True,
        )
    correlation = float(np.corrcoef(list(dimensions.values()), list(accuracies.values()))[0, 1])
    print(f"\nPearson correlation of dimension and accuracy over {len(names)} networks: {correlation:.2f}\n")
    _save(accuracy_figure(dimensions, accuracies, correlation), options.out / "dimension_accuracy.png")


def accuracy_figure(dimensions: dict[str, float], accuracies: dict[str, float], correlation: float) -> Figure:
    """Return accuracy over the dimension of the last hidden layer, one named point per network.

    Source: Ansuini et al., *Intrinsic dimension of data representations in deep neural networks*, 2019, figure 4.
    """
    figure = canvas.new_figure(6.4, 4.4)
    axes = figure.subplots()
    xs, ys = list(dimensions.values()), [accuracies[name] for name in dimensions]
    axes.plot(xs, ys, "o", color="#0c2c84", ms=5)
    axes.set_xlabel("TwoNN dimension of the last hidden layer")
    axes.set_ylabel("accuracy on test images")
    axes.margins(0.15)
    axes.set_title(f"{len(dimensions)} networks, r = {correlation:.2f}", fontsize=10)
    axes.grid(alpha=0.3)
    name_points(figure, axes, xs, ys, list(dimensions))
    return figure


def _save(figure: object, path: Path) -> None:
    figure.savefig(path, dpi=90)  # type: ignore[attr-defined]
    print(f"Picture: {path}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder or zip of class/image files; without it scikit-learn's digits")
    parser.add_argument("--limit", type=int, help="use so many images in all")
    parser.add_argument("--size", type=int, help="side of the images in pixels (files: 32 unless told)")
    parser.add_argument("--model", default="vgg11:0.25", help="kind:width of the network with the profile")
    parser.add_argument("--networks", nargs="*", default=list(FAMILY), help="kind:width of those held against accuracy")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--samples", type=int, default=1000, help="images whose neighbours are looked for")
    parser.add_argument("--threads", type=int, help="of PyTorch, all cores unless told")
    parser.add_argument("--out", type=Path, default=Path.cwd(), help="where the pictures go")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
