"""Train eight small networks whose profiles are typical, and draw the pictures of docs/guide.md.

    python examples/guide.py

All learn scikit-learn's digits; what differs is what the profile shows. A few minutes of processor time in all.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

import torch
from common import Classifier, Images, images, network, quiet
from lightning import Trainer, seed_everything
from torch import nn

from lightning_saturation import SaturationMonitor, SaturationReport
from lightning_saturation.drawing.metric_curve import MetricCurve
from lightning_saturation.saturation.plots.verdict import verdict_figure
from lightning_saturation.saturation.plots.windows import heatmap_figure
from lightning_saturation.saturation.report.layer import LayerStatistics

RECORDED = Path(__file__).parent / "paper" / "results" / "cat-dog_vgg11_0.0625_s0.json"
"""The run of README's pictures: a thin VGG11 on the cats and dogs of CIFAR-10, 10,000 images."""

STATISTICS = ("saturation", "continuous_saturation", "effective_rank", "participation_ratio", "stable_rank")


class Profile(NamedTuple):
    """A network of the examples at a ``width``, or ``"hourglass"``; how long and on how much it is trained.

    ``without`` names convolutions to take out, ``waist`` is the narrowest layer of the hourglass.
    """

    model: str
    width: float = 1.0
    epochs: int = 30
    limit: int | None = None
    without: tuple[str, ...] = ()
    waist: int = 6


PROFILES = {
    "fits": Profile("mlp", 0.25),
    "too_narrow": Profile("vgg11", 0.0625),
    "too_wide": Profile("mlp", 4.0),
    "tail": Profile("vgg11", 0.25),
    "bottleneck": Profile("hourglass"),
    "few_samples": Profile("mlp", 4.0, limit=400),
    "moving": Profile("vgg11", 0.125, epochs=7),
    "few_pixels": Profile("cnn"),
}
"""By the name of the picture."""

CHECKS = {
    "too_narrow": Profile("vgg11", 0.125),
    "too_wide": Profile("mlp", 0.25),
    "tail": Profile("vgg11", 0.25, without=("4_2", "5_1", "5_2")),
    "bottleneck": Profile("hourglass", waist=24),
    "few_samples": Profile("mlp", 4.0),
    "moving": Profile("vgg11", 0.125),
}
"""What the guide says to do, done."""


def hourglass(data: Images, waist: int) -> nn.Sequential:
    """Return a dense network with one layer of ``waist`` features between layers of 96."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    features = data.train_pixels[0].numel()
    for name, size in {"wide1": 96, "wide2": 96, "waist": waist, "wide3": 96}.items():
        layers[name], layers[f"{name}_relu"] = nn.Linear(features, size), nn.ReLU()
        features = size
    layers["output"] = nn.Linear(features, len(data.classes))
    return nn.Sequential(layers)


def built(profile: Profile, data: Images) -> nn.Sequential:
    """Return the network that ``profile`` describes."""
    if profile.model == "hourglass":
        return hourglass(data, profile.waist)
    whole = network(profile.model, data.shape, len(data.classes), width=profile.width)
    gone = {f"{part}{name}" for name in profile.without for part in ("conv", "norm", "relu")}
    return nn.Sequential(OrderedDict((name, child) for name, child in whole.named_children() if name not in gone))


def trained(profile: Profile) -> SaturationMonitor:
    """Return the monitor of a training as ``profile`` says, from fixed seeds."""
    seed_everything(0, verbose=False)
    data = images(limit=profile.limit)
    model = built(profile, data)
    monitor = SaturationMonitor()
    trainer = Trainer(
        max_epochs=profile.epochs,
        callbacks=[monitor],
        logger=False,
        accelerator="cpu",
        devices=1,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        log_every_n_steps=1,
    )
    trainer.fit(Classifier(model, len(data.classes)), data.train_loader(64, seed=0), data.test_loader())
    return monitor


def recorded(path: Path) -> tuple[list[SaturationReport], MetricCurve]:
    """Return the training windows of a run that ``examples/paper`` recorded, and its accuracy."""
    run = json.loads(path.read_text(encoding="utf-8"))
    rows, train = run["rows"], run["train"]
    reports = []
    for index, row in enumerate(rows):
        layers = {}
        for name, features, samples in zip(train["layers"], train["features"], train["samples"], strict=True):
            numbers = {key: _known(train[key][name][index]) for key in STATISTICS}
            dimension = {"intrinsic_dimension": _whole(numbers["saturation"] * features), "skipped": 0}
            layers[name] = LayerStatistics.from_numbers(
                {**numbers, **dimension, "features": features, "samples": samples}
            )
        where = {"epoch": row["epoch"], "step": row["step"], "learning_rates": tuple(train["lr"][index])}
        reports.append(SaturationReport(layers, "train", output_layers=tuple(train["output"]), **where))
    epochs, steps, values = ([row[key] for row in rows] for key in ("epoch", "step", "val/accuracy"))
    return reports, MetricCurve("val/accuracy", epochs, steps, values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/guide"), help="where pictures go; README's go beside")
    parser.add_argument("--only", choices=PROFILES, nargs="*", default=list(PROFILES), help="some of them")
    options = parser.parse_args()
    quiet()
    options.out.mkdir(parents=True, exist_ok=True)
    reports, accuracy = recorded(RECORDED)
    verdict_figure(reports, metric=accuracy).savefig(options.out.parent / "saturation.png", dpi=100)
    heatmap_figure(reports).savefig(options.out.parent / "heatmap.png", dpi=80)
    torch.set_num_threads(1)
    for name in options.only:
        monitor = trained(PROFILES[name])
        monitor.plot().savefig(options.out / f"{name}.png", dpi=80)
        print(f"{name}: {_result(monitor)}\n{monitor.diagnose()}", flush=True)
        if name in CHECKS:
            print(f"{name}, after what the guide says to do: {_result(trained(CHECKS[name]))}\n", flush=True)


def _known(value: float | None) -> float:
    return math.nan if value is None else value


def _whole(value: float) -> float:
    return value if math.isnan(value) else round(value)


def _result(monitor: SaturationMonitor) -> str:
    (*_, line) = monitor.plot().axes[1].get_lines()[:2]
    return f"average saturation {monitor.report().average:.2f}, {line.get_label()} {line.get_ydata()[-1]:.3f}"


if __name__ == "__main__":
    main()
