"""Networks and classifier of the examples: the paper's layers, on small and larger images, and they learn."""

import pytest
import torch
from lightning import Trainer, seed_everything
from torch import nn

from examples.common import NETWORKS, Classifier, images, network
from examples.common.classifier import _augmented


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (3, 20, 28)])
def test_any_image_gives_a_logit_per_class(name, shape):
    model = network(name, shape, 7, width=1 / 16)
    assert model(torch.zeros(2, *shape)).shape == (2, 7)


@pytest.mark.parametrize("depth", [11, 13, 16, 19])
@pytest.mark.parametrize("width", [1, 1 / 16])
def test_convolutions_are_those_of_vgg(depth, width):
    # Simonyan and Zisserman, table 1, columns A, B, D and E
    filters = {
        11: [64, 128, 256, 256, 512, 512, 512, 512],
        13: [64, 64, 128, 128, 256, 256, 512, 512, 512, 512],
        16: [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512],
        19: [64, 64, 128, 128, *[256] * 4, *[512] * 8],
    }[depth]
    with torch.device("meta"):
        model = network(f"vgg{depth}", (3, 32, 32), 10, width=width)
    assert [m.out_channels for m in model if isinstance(m, nn.Conv2d)] == [int(f * width) for f in filters]
    assert sum(isinstance(m, nn.MaxPool2d) for m in model) == 5
    last = int(512 * width)
    assert [(m.in_features, m.out_features) for m in model if isinstance(m, nn.Linear)] == [(last, last), (last, 10)]


def test_small_images_keep_two_by_two_for_every_convolution():
    sides = []
    model = network("vgg19", (1, 8, 8), 10, width=1 / 16)
    for layer in model:
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_pre_hook(lambda _, inputs: sides.append(inputs[0].shape[-1]))
    model(torch.zeros(2, 1, 8, 8))
    assert len(sides) == 16
    assert min(sides) == 2


def test_mlp_hidden_units_are_the_papers():
    hidden = [network("mlp", (3, 32, 32), 10, width=w).hidden.out_features for w in (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)]
    assert hidden == [8, 16, 32, 64, 128]


def test_unknown_network_and_bad_width():
    with pytest.raises(ValueError, match=r"a network among cnn, mlp, vgg11, .*got 'resnet'"):
        network("resnet", (1, 8, 8), 10)
    with pytest.raises(ValueError, match=r"`width` above 0, got -0\.5"):
        network("cnn", (1, 8, 8), 10, width=-0.5)


def test_augmentation_shifts_and_mirrors():
    torch.manual_seed(0)
    image = torch.arange(1.0, 65).reshape(1, 1, 8, 8)
    padded = nn.functional.pad(image[0, 0], (4, 4, 4, 4))
    windows = [padded[r : r + 8, c : c + 8] for r in range(9) for c in range(9)]
    allowed = {tuple(w.flatten().tolist()) for w in windows} | {tuple(w.flip(1).flatten().tolist()) for w in windows}
    seen = {tuple(x.flatten().tolist()) for x in _augmented(image.expand(2000, 1, 8, 8))}
    assert seen == allowed


@pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning")
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
def test_the_small_cnn_learns_the_digits():
    seed_everything(0, verbose=False)
    data = images()
    model = Classifier(network("cnn", data.shape, 10, width=0.5), 10, learning_rate=3e-3)
    trainer = Trainer(
        max_epochs=4, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model, data.train_loader(64), data.test_loader())
    assert trainer.callback_metrics["val/accuracy"] > 0.9
    # the logged accuracy is that of all samples, not a mean of batch means
    x = torch.cat([x for x, _ in data.test_loader()])
    model.eval()
    right = (model(x).argmax(1) == data.test_labels).double().mean()
    assert trainer.callback_metrics["val/accuracy"] == pytest.approx(float(right), abs=1e-6)
