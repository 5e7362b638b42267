"""Sweep architectures: average saturation against test accuracy (Shenk et al., figure 9).

python examples/sweep/train.py             VGGs and an MLP on the digits, in processes of this machine
wandb sweep examples/sweep/sweep.yaml      the same for a W&B server; then `wandb agent ...`
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # examples/, where `common` is

from common import Classifier, images, network, quiet

from lightning_saturation import sweep

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", nargs="+", default=["vgg11", "vgg13", "vgg16", "vgg19", "mlp"])
parser.add_argument("--width", nargs="+", type=float, default=[0.0625, 0.125, 0.25])
parser.add_argument("--epochs", nargs="+", type=int, default=[10])
parser.add_argument("--data", help="folder or zip of class/image files; without it scikit-learn's digits")
parser.add_argument("--limit", type=int, help="use so many images in all")
parser.add_argument("--workers", type=int, default=1, help="trials at a time")
options = parser.parse_args()


def trial(config):
    quiet()
    data = images(options.data, limit=options.limit)
    model = network(config["model"], data.shape, len(data.classes), width=config["width"])
    return Classifier(model, len(data.classes), anneal=True), (data.train_loader(64), data.test_loader())


if __name__ == "__main__":
    grid = {"model": options.model, "width": options.width, "epochs": options.epochs}
    arguments = {"out": "results/sweep", "metric": "val/accuracy", "workers": options.workers}
    print(sweep(trial, grid, trainer=lambda config: {"max_epochs": config["epochs"]}, **arguments))
