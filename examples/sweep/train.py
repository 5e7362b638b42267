"""Sweep architectures: average saturation against test accuracy (Shenk et al., figure 9).

python examples/sweep/train.py                  VGGs and an MLP on the digits, in processes of this machine
wandb sweep examples/sweep/sweep.yaml           the same for a W&B server; then `wandb agent ...`
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # examples/, where `common` is

from common import NETWORKS, Classifier, images, network, quiet
from lightning import Trainer

from lightning_saturation import sweep
from lightning_saturation.sweeping.trial import QUIET

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", nargs="+", default=["vgg11", "vgg13", "vgg16", "vgg19", "mlp"], choices=list(NETWORKS))
parser.add_argument("--width", nargs="+", type=float, default=[0.0625, 0.125, 0.25, 0.5])
parser.add_argument("--epochs", type=int, default=8)
parser.add_argument("--batch_size", type=int, default=128)
parser.add_argument("--data", help="folder or zip of class/image files; without it scikit-learn's digits")
parser.add_argument("--limit", type=int, help="use so many images in all")
parser.add_argument("--workers", type=int, default=1, help="trials at a time")
parser.add_argument("--out", type=Path, default=Path("results/sweep"), help="where results go")
options = parser.parse_args()


def trial(config):
    """Return the classifier of one architecture, and its training and test images."""
    quiet()
    data = images(options.data, limit=options.limit)
    model = network(config["model"], data.shape, len(data.classes), width=config["width"])
    return Classifier(model, len(data.classes)), (data.train_loader(options.batch_size), data.test_loader())


def trainer(config):
    """Return a Trainer for as many epochs as the configuration says."""
    return Trainer(max_epochs=config["epochs"], log_every_n_steps=10, **QUIET)


if __name__ == "__main__":
    grid = {"model": options.model, "width": options.width, "epochs": [options.epochs]}
    print(sweep(trial, grid, out=options.out, metric="val/accuracy", trainer=trainer, workers=options.workers))
