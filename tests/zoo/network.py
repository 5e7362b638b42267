"""What the zoo holds of a network: random weights, a few batches, and how to run it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

SAMPLES = 6


class Network(NamedTuple):
    """``forward(model, batch)`` runs it; its samples are in dimension ``axis`` of every tensor of a batch.

    ``outputs`` are named where no small intervention tells, as values are only chosen by.
    """

    model: nn.Module
    batches: list[Any]
    forward: Callable[[Any, Any], Any] | None = None
    axis: int = 0
    outputs: tuple[str, ...] | None = None
    remark: str = ""


def floats(*shape: int, scale: float = 1.0) -> list[Tensor]:
    """Return two batches of inputs (SAMPLES, *shape)."""
    return [scale * torch.randn(SAMPLES, *shape, dtype=torch.float64) for _ in range(2)]


def tokens(length: int, vocabulary: int = 50) -> list[Tensor]:
    """Return two batches of token numbers (SAMPLES, length), without the smallest ones, which may be special."""
    return [torch.randint(5, vocabulary, (SAMPLES, length)) for _ in range(2)]


def sentences(length: int = 7, vocabulary: int = 50, **more: Any) -> list[dict[str, Any]]:
    """Return two dict batches with ``input_ids``."""
    return [{"input_ids": each, **more} for each in tokens(length, vocabulary)]


def unpacked(model: Any, batch: Any) -> Any:
    """Run a model that takes the tensors of a tuple."""
    return model(*batch)


def named(model: Any, batch: Any) -> Any:
    """Run a model that takes the entries of a dict."""
    return model(**batch)
