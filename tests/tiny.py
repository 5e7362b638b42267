"""A network and a Trainer small enough to train in a test, and what its layers must be found to hold."""

from __future__ import annotations

import signal
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

LAYERS = ("body.first", "body.second", "body.head")
SAMPLES = 32
BATCH = 8

# Lightning's advice, as it says itself, possibly wanted; and one of its own calls that PyTorch has deprecated.
quiet = [
    pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore::lightning_fabric.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),
    # Runs of tests are short, and tests/stopping says when this is said.
    pytest.mark.filterwarnings("ignore:SaturationStopping cannot stop this training"),
]


def data(samples: int = SAMPLES, seed: int = 0) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(samples, 4, generator=generator) @ torch.diag(torch.tensor([3.0, 1.0, 0.3, 0.1]))
    return TensorDataset(inputs, torch.randint(3, (samples,), generator=generator))


def batches(samples: int = SAMPLES, *, size: int = BATCH, seed: int = 0, shuffle: bool = False) -> DataLoader:
    return DataLoader(data(samples, seed), batch_size=size, shuffle=shuffle)


class Body(nn.Module):
    """A class of its own, because the compiler skips what runs in PyTorch's own files, as ``nn.Sequential`` does."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.second = nn.Linear(6, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        return self.head(torch.relu(self.second(torch.tanh(self.first(x)))))


class Net(LightningModule):
    """Three linear layers. With a learning rate of 0, the default, what a window must hold is known beforehand."""

    def __init__(self, lr: float = 0.0) -> None:
        super().__init__()
        self.lr = lr
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            self.body = Body()

    def forward(self, x):
        return self.body(x)

    def loss(self, batch):
        x, y = batch
        return nn.functional.cross_entropy(self(x), y)

    def training_step(self, batch, batch_idx):
        return self.loss(batch)

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.loss(batch)

    def test_step(self, batch, batch_idx):
        self.loss(batch)

    def predict_step(self, batch, batch_idx):
        return self(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)


def trainer(*callbacks, **options) -> Trainer:
    """Return a Trainer that does nothing but train, on one CPU."""
    quiet_options = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "max_epochs": 1,
    }
    return Trainer(callbacks=list(callbacks), **{**quiet_options, **options})


def fit(model: LightningModule, *callbacks, val=None, train=None, ckpt_path=None, **options) -> Trainer:
    """Train ``model`` on 32 samples in batches of 8, or on ``train``, and return the Trainer."""
    done = trainer(*callbacks, **options)
    done.fit(model, batches() if train is None else train, val, ckpt_path=ckpt_path)
    return done


def outputs(body: Body, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return what each linear layer puts out, found without any hook: by running the layers one after the other.

    In batches and with gradients as in training: products in half precision depend on both.
    """
    first = [body.first(part) for part in inputs.split(BATCH)]
    second = [body.second(torch.tanh(part)) for part in first]
    head = [body.head(torch.relu(part)) for part in second]
    return {name: torch.cat(parts).detach() for name, parts in zip(LAYERS, (first, second, head), strict=True)}


def assert_holds(report, rows: dict[str, torch.Tensor], *, rtol: float = 1e-9) -> None:
    """Check that ``report`` is that of ``rows`` (samples, features) by layer: their number and spectrum, by NumPy."""
    assert list(report.layers) == list(rows)
    rounding = 1e-14  # of outputs that do not vary, such as those of a layer without inputs
    for name, expected in rows.items():
        layer = report.layers[name]
        assert (name, layer.samples, layer.features) == (name, *expected.shape)
        eigenvalues = np.linalg.eigvalsh(np.cov(expected.detach().double().numpy(), rowvar=False))[::-1]
        scale = eigenvalues[0]
        # Eigenvalues are kept of the last window only.
        np.testing.assert_allclose(layer.total_variance, eigenvalues.sum(), rtol=rtol, atol=rounding)
        if layer.eigenvalues is not None:
            np.testing.assert_allclose(layer.eigenvalues.numpy(), eigenvalues, rtol=rtol, atol=rtol * scale + rounding)


def seen(monitor, stage: str = "train") -> list[dict[str, int]]:
    """Return how many samples each window of ``stage`` held, layer by layer."""
    windows = [report for report in monitor.reports if report.stage == stage]
    return [{name: layer.samples for name, layer in report.layers.items()} for report in windows]


def is_untouched(model: nn.Module) -> bool:
    """Return whether ``model`` carries no hook of any kind."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return not any(getattr(module, kind) for module in model.modules() for kind in kinds)


@contextmanager
def interruptible():
    """Let Ctrl-C work, also where a shell in the background has it ignored, and again afterwards.

    Lightning ignores it for good once it has happened.
    """
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
