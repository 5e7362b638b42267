"""What the examples share: images in memory, the networks of the saturation paper, a small classifier."""

from .classifier import Classifier
from .data import Images, images
from .manners import ProgressBar, quiet, wandb_logger
from .networks import NETWORKS, cnn, mlp, network, vgg11, vgg13, vgg16, vgg19

__all__ = [
    "NETWORKS",
    "Classifier",
    "Images",
    "ProgressBar",
    "cnn",
    "images",
    "mlp",
    "network",
    "quiet",
    "vgg11",
    "vgg13",
    "vgg16",
    "vgg19",
    "wandb_logger",
]
