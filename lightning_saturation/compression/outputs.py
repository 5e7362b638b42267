"""Joint moments of layers' outputs with what they are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_saturation.capture.capture import capture
from lightning_saturation.capture.evaluation import Batches
from lightning_saturation.compression.subspace import OutputMoments
from lightning_saturation.covariance.moments import ShiftedSums, add_rows, empty_sums, from_sums
from lightning_saturation.similarity.pairs import split_moments


def output_moments(
    model: nn.Module, batches: Batches, *, layers: Sequence[str], reference: nn.Module | None, joint: bool
) -> dict[str, OutputMoments]:
    """Return the moments of every layer's outputs, each position a sample, in evaluation mode.

    With ``joint`` they are joint ones with the outputs of the layer of the same name in ``reference``, or, where that
    is None, with the model's own output for the sample.
    """
    sums: dict[str, tuple[ShiftedSums, int]] = {}
    models = [model] if reference is None or not joint else [model, reference]
    with batches.over(*models) as each:
        for batch, homes in each:
            (rows, answer), *others = (
                _rows(batches, m, batch, home, layers) for m, home in zip(models, homes, strict=True)
            )
            other = others[0][0] if others else None
            for name, x in rows.items():
                y = _other(name, x, other, answer) if joint else x[:, :0]
                both = torch.cat([x.double(), y.to(x.device).double()], dim=1)
                if name not in sums:
                    sums[name] = empty_sums(both.shape[1], device=both.device), x.shape[1]
                add_rows(sums[name][0], both)
    if not sums:
        raise ValueError("Expected `batches` with at least one batch that reaches a layer, got none.")
    joint_moments = {name: (from_sums(kept), features) for name, (kept, features) in sums.items()}
    return {
        name: OutputMoments(moments.mean[:features], split_moments(moments, x_features=features))
        for name, (moments, features) in joint_moments.items()
    }


def _rows(
    batches: Batches, model: nn.Module, batch: Any, home: torch.device, layers: Sequence[str]
) -> tuple[dict[str, Tensor], Any]:
    found: dict[str, list[Tensor]] = {}

    def record(name: str, rows: Tensor) -> None:
        found.setdefault(name, []).append(rows)

    with capture(model, record, layers=layers, pooling="positions"):
        answer = batches.run(model, batch, home)
    return {name: torch.cat(rows) for name, rows in found.items()}, answer


def _other(name: str, x: Tensor, other: dict[str, Tensor] | None, answer: Any) -> Tensor:
    if other is not None:
        if name not in other or len(other[name]) != len(x):
            raise ValueError(f"Expected `reference` to put out as many rows as the model in {name!r}.")
        return other[name]
    if not isinstance(answer, Tensor) or answer.ndim < 2 or len(x) % len(answer):
        raise ValueError("Expected a model that puts out a tensor (samples, …) to correlate with; give a `reference`.")
    return answer.flatten(1).repeat_interleave(len(x) // len(answer), dim=0)
