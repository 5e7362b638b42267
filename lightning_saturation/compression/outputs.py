"""Joint moments of layers' outputs with what they are compared with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from lightning_saturation.capture import capture
from lightning_saturation.capture.running import evaluating, run
from lightning_saturation.compression.subspace import OutputMoments
from lightning_saturation.functional.moments import ShiftedSums, add_rows, empty_sums, from_sums
from lightning_saturation.functional.pairs import PairMoments


def output_moments(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    layers: Sequence[str],
    reference: nn.Module | None,
    joint: bool,
    device: torch.device | str | None,
) -> dict[str, OutputMoments]:
    """Return the moments of every layer's outputs, each position a sample, in evaluation mode.

    With ``joint`` they are joint ones with the outputs of the layer of the same name in ``reference``, or, where that
    is None, with the model's own output for the sample.
    """
    sums: dict[str, tuple[ShiftedSums, int]] = {}
    with ExitStack() as stack:
        home = stack.enter_context(evaluating(model, device))
        if reference is not None:
            there = stack.enter_context(evaluating(reference, device))
        for batch in batches:
            rows, answer = _rows(model, batch, home, layers)
            other = None if reference is None or not joint else _rows(reference, batch, there, layers)[0]
            for name, x in rows.items():
                y = _other(name, x, other, answer) if joint else x[:, :0]
                both = torch.cat([x.double(), y.to(x.device).double()], dim=1)
                if name not in sums:
                    sums[name] = empty_sums(both.shape[1], device=both.device), x.shape[1]
                add_rows(sums[name][0], both)
    if not sums:
        raise ValueError("Expected `batches` with at least one batch that reaches a layer, got none.")
    return {name: _split(*kept) for name, kept in sums.items()}


def _rows(model: nn.Module, batch: Any, home: torch.device, layers: Sequence[str]) -> tuple[dict[str, Tensor], Any]:
    found: dict[str, list[Tensor]] = {}

    def record(name: str, rows: Tensor) -> None:
        found.setdefault(name, []).append(rows)

    with capture(model, record, layers=layers, pooling="positions"):
        answer = run(model, batch, home)
    return {name: torch.cat(rows) for name, rows in found.items()}, answer


def _other(name: str, x: Tensor, other: dict[str, Tensor] | None, answer: Any) -> Tensor:
    if other is not None:
        if name not in other or len(other[name]) != len(x):
            raise ValueError(f"Expected `reference` to put out as many rows as the model in {name!r}.")
        return other[name]
    if not isinstance(answer, Tensor) or answer.ndim < 2 or len(x) % len(answer):
        raise ValueError("Expected a model that puts out a tensor (samples, …) to correlate with; give a `reference`.")
    return answer.flatten(1).repeat_interleave(len(x) // len(answer), dim=0)


def _split(sums: ShiftedSums, features: int) -> OutputMoments:
    joint = from_sums(sums)
    scatter = joint.scatter
    pair = PairMoments(
        joint.samples,
        scatter[:features, :features],
        scatter[features:, features:],
        scatter[:features, features:],
    )
    return OutputMoments(joint.mean[:features], pair)
