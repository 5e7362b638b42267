"""How the rows of a layer are kept: all or some, exactly or in a sketch, and where."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch

from lightning_saturation.arguments import check_choice
from lightning_saturation.capture.pooling import Pooling

CovarianceKind = Literal["exact", "sketch", "auto"]
MaxSamples = int | Literal["auto", "default"] | None

# An exact state of this width is 128 MiB and its eigenproblem takes seconds; both grow fast from here on.
WIDEST_EXACT = 4096
# Rows a window by "auto": so many times the width, and at least so many. Their bias is in docs/benchmarks.md.
ROWS_PER_FEATURE = 16
LEAST_ROWS = 4096


class Accumulation(NamedTuple):
    """The resolved arguments ``covariance``, ``max_samples`` and ``state_device`` of a monitor."""

    covariance: CovarianceKind = "auto"
    max_samples: int | Literal["auto"] | None = None
    state_device: torch.device | None = None

    def sketches(self, features: int) -> bool:
        """Return whether a layer of so many ``features`` is sketched."""
        return self.covariance == "sketch" or (self.covariance == "auto" and features > WIDEST_EXACT)

    def budget(self, features: int) -> int | None:
        """Return the most rows to take of a layer of so many ``features`` in a window; None stands for all."""
        return max(ROWS_PER_FEATURE * features, LEAST_ROWS) if self.max_samples == "auto" else self.max_samples


def accumulation(
    *,
    covariance: CovarianceKind = "auto",
    max_samples: MaxSamples = "default",
    state_device: torch.device | str | None = None,
    pooling: Pooling | None = "mean",
) -> Accumulation:
    """Return how rows are kept; raises ``ValueError`` for an argument out of range.

    ``max_samples="default"`` is ``"auto"`` where every position is a row, and None, all rows, elsewhere.
    """
    check_choice("covariance", covariance, ("exact", "sketch", "auto"))
    if max_samples == "default":
        max_samples = "auto" if pooling == "positions" else None
    rows = isinstance(max_samples, int) and not isinstance(max_samples, bool) and max_samples >= 2
    if not (max_samples in ("auto", None) or rows):
        raise ValueError(f"Expected `max_samples` to be 'auto', None or at least 2 rows, got {max_samples!r}.")
    return Accumulation(covariance, max_samples, None if state_device is None else _device(state_device))


def _device(name: torch.device | str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # unknown, or not on this machine
        raise ValueError(f"Expected `state_device` to be a device of this machine, got {name!r}. {error}") from error
    if device.type == "meta":
        raise ValueError(f"Expected `state_device` to be a device that holds numbers, got {name!r}.")
    return device
