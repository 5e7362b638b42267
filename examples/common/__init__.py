"""What the examples share: images in memory, the networks of the saturation paper, a small classifier."""

from .classifier import Classifier, quiet
from .data import Images, images
from .networks import NETWORKS, cnn, mlp, network, vgg11, vgg13, vgg16, vgg19

__all__ = [
    "NETWORKS",
    "Classifier",
    "Images",
    "cnn",
    "images",
    "mlp",
    "network",
    "quiet",
    "vgg11",
    "vgg13",
    "vgg16",
    "vgg19",
]
