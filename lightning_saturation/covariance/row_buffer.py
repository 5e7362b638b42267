"""Rows collected until there are enough of them to be worth touching a covariance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_saturation.covariance.accumulation import Accumulation
from lightning_saturation.covariance.moments import Moments, ShiftedSums, add_rows, empty_sums, from_sums
from lightning_saturation.covariance.sketch import Sketch, add_to_sketch, empty_sketch, sketch_size
from lightning_saturation.covariance.state_metric import accumulation_device
from lightning_saturation.covariance.thinning import Thinning, next_row, take, thinning

# Updating a (features, features) matrix once per step moves more memory than it does arithmetic; about as many rows as
# features at a time turn it into a matrix product. The bytes bound what a very wide layer may hold.
_LEAST_ROWS = 1024
_MOST_BYTES = 32 * 2**20
# What comes in large pieces need not be collected first; pieces of this size stay in a processor's cache.
_DIRECT_NUMBERS = 2**18


class RowBuffer:
    """The rows of one layer over one window, on their way into a covariance or the sketch of one."""

    def __init__(self, accumulation: Accumulation = Accumulation()) -> None:  # noqa: B008
        self._accumulation = accumulation
        self._sums: ShiftedSums | Sketch | None = None
        self._skipped: Tensor | int = 0  # on the sums' device, so that nothing waits
        self._rows = self._spare = torch.empty(0, 0)
        self._capacity = 0
        self._usual: tuple[int, torch.dtype, torch.device] | None = None  # rows that need no other buffer
        self._filled, self._pinned = 0, False
        self._pending: tuple[Tensor, int, Any] | None = None  # rows still on their way to another device, their weight
        self._thinning: Thinning | None = None
        self._seen = self._seen_before = self._due = 0  # no row is taken before so many are seen as `_due` says

    def add(self, rows: Tensor, *, batches: int | None = None) -> None:
        """Take ``rows`` (…, features) in; raises ``ValueError`` where their width is not that of the first.

        ``batches`` is how many such calls the window will have, if that is known. Whatever the covariance would refuse
        is refused here: an error at the end of a window comes too late.
        """
        features, count = rows.shape[-1] if rows.ndim else 0, rows.shape[:-1].numel()
        if rows.ndim < 2 or not features or rows.is_complex():
            raise ValueError(f"Expected real rows (samples, features), got {rows.dtype} of shape {tuple(rows.shape)}.")
        if not count:
            return
        if (features, rows.dtype, rows.device) != self._usual:
            self._adapt(rows)
        if self._seen + count <= self._due:
            self._seen += count
            return
        chosen = self._choose(rows, count, batches)
        direct = rows.device == self._rows.device
        for part in _parts(chosen, max(self._capacity, _DIRECT_NUMBERS // features if direct else 0)):
            self._collect(part)

    def moments(self) -> Moments | None:
        """Return the moments of all rows, each counted with its weight, or None where there were none."""
        self._settle()
        return from_sums(self._sums) if isinstance(self._sums, ShiftedSums) else None

    def sketch(self) -> Sketch | None:
        """Return the sketch of all rows, each counted with its weight, or None where there were none."""
        self._settle()
        return self._sums if isinstance(self._sums, Sketch) else None

    def few(self) -> Tensor | None:
        """Return all rows so far where they are fewer than their features and not yet summed up; else None.

        They are those of this moment: later rows overwrite them.
        """
        exact = not self._accumulation.sketches(self.features)
        whole = exact and self._sums is None and self._pending is None and not self._pinned
        return self._rows[: self._filled] if whole and 0 < self._filled < self.features else None

    @property
    def skipped(self) -> int:
        """How many rows were left out for NaN or infinity."""
        self._settle()
        return int(self._skipped)

    @property
    def features(self) -> int:
        """How wide the rows are; 0 before the first."""
        return int(self._rows.shape[1])

    @property
    def taken(self) -> int:
        """How many rows there are, a row of a longer stride than others' for one; of a window in parts, the least."""
        self._settle()
        return 0 if self._sums is None else int(self._sums.samples) // self.stride

    @property
    def stride(self) -> int:
        """How many rows each of the last rows taken stands for."""
        return self._thinning.stride if self._thinning is not None else 1

    def to_state(self) -> dict[str, Any]:
        """Return all rows so far, as sums, for a checkpoint."""
        self._settle()
        sums = {name: state.clone() for name, state in (self._sums or self._nothing(0))._asdict().items()}
        sums["skipped"] = torch.as_tensor(self._skipped).clone()
        thinned = None if self._thinning is None else tuple(self._thinning._replace(seen=self._seen))
        rows = {"features": self.features, "dtype": str(self._rows.dtype), "thinning": thinned}
        return {**sums, **rows, "rows seen": self._seen, "rows seen before": self._seen_before}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state`` was written. Raises ``ValueError`` where rows were kept in another way."""
        kind = Sketch if self._accumulation.sketches(state["features"]) else ShiftedSums
        if not {*kind._fields, "skipped"} <= set(state):
            raise ValueError("Expected sums of the kind that `covariance` asks for, got those of another one.")
        home = self._accumulation.state_device or torch.device("cpu")
        self._allocate(state["features"], getattr(torch, state["dtype"].removeprefix("torch.")), home)
        self._sums = kind(*(state[name].clone() for name in kind._fields)) if len(state["shift"]) else None
        self._skipped = state["skipped"].clone()
        self._thinning = None if state["thinning"] is None else Thinning(*state["thinning"])
        self._seen, self._seen_before, self._due = state["rows seen"], state["rows seen before"], 0

    def reset(self) -> None:
        """Forget all rows; how many there were tells how many to expect."""
        self._filled, self._pending, self._thinning = 0, None, None
        self._seen, self._seen_before, self._due = 0, self._seen or self._seen_before, 0
        self._sums, self._skipped = None, 0

    def _adapt(self, rows: Tensor) -> None:
        """Get ready for ``rows`` of another width, type or device than before."""
        features = rows.shape[-1]
        if features != self.features and self._seen:
            raise ValueError(f"Expected rows of {self.features} features as before, got {features}.")
        dtype = torch.promote_types(rows.dtype, torch.float32)
        if features != self.features or torch.promote_types(dtype, self._rows.dtype) != self._rows.dtype:
            self._flush()
            self._allocate(features, dtype, self._accumulation.state_device or rows.device)
        elif self._accumulation.state_device is None and rows.device != self._rows.device:
            self._move(rows.device)  # what came out of a checkpoint, or a model that was moved
        self._usual = features, rows.dtype, rows.device

    def _choose(self, rows: Tensor, count: int, batches: int | None) -> Tensor:
        """Return the rows that the budget leaves, without making a copy of all of them first."""
        before, self._seen = self._seen, self._seen + count
        budget = self._accumulation.budget(rows.shape[-1])
        if budget is None:
            return rows
        if self._thinning is None:
            self._thinning = thinning(
                budget,
                expected=self._seen_before or (count * batches if batches else None),
                batches=batches,
                positions=rows.shape[1] if rows.ndim > 2 else None,  # rows in two dimensions may be positions as well
            )
        after, picked = take(self._thinning._replace(seen=before), count)
        if after.stride != self.stride:
            self._flush()  # what is collected so far has another weight
        self._thinning, self._due = after, next_row(after)
        if picked is None:
            return rows
        if not picked.shape[0]:
            return rows[:0]
        picked = picked.to(rows.device, non_blocking=True)
        if rows.is_contiguous():
            return rows.view(-1, rows.shape[-1]).index_select(0, picked)
        return rows[picked] if rows.ndim == 2 else rows[picked // rows.shape[1], picked % rows.shape[1]]

    def _collect(self, rows: Tensor) -> None:
        """Put ``rows`` (samples, features), into the buffer, or past it where there are enough of them."""
        count = rows.shape[0]
        if self._filled + count > self._capacity:
            self._flush()
        if 2 * count >= self._capacity and rows.device == self._rows.device:
            self._flush()  # enough of them at once, and in order
            self._update(rows, self.stride)
            return
        self._rows[self._filled : self._filled + count].copy_(rows, non_blocking=self._pinned)
        self._filled += count

    def _allocate(self, features: int, dtype: torch.dtype, device: torch.device) -> None:
        fitting = _MOST_BYTES // (features * dtype.itemsize)
        wanted = sketch_size(features) if self._accumulation.sketches(features) else max(_LEAST_ROWS, features)
        self._capacity, self._usual = max(1, min(wanted, fitting)), None
        shape = self._capacity, features
        pinned = self._pinned = device.type == "cpu" and torch.cuda.is_available()
        # Allocated outside inference mode, in which Lightning validates, so that training may write into it too.
        with torch.inference_mode(False):
            self._rows = torch.empty(shape, dtype=dtype, device=device, pin_memory=pinned)
            self._spare = torch.empty(shape, dtype=dtype, device=device, pin_memory=True) if pinned else self._spare

    def _move(self, device: torch.device) -> None:
        self._settle()
        if self._sums is not None:
            home = accumulation_device(device)
            self._sums = type(self._sums)(*(tensor.to(home) for tensor in self._sums))
            self._skipped = torch.as_tensor(self._skipped).to(home)
        self._allocate(self.features, self._rows.dtype, device)

    def _flush(self) -> None:
        """Hand over what is collected: at once on its own device, else when the copies have long arrived."""
        if not self._filled:
            return
        rows, self._filled = self._rows[: self._filled], 0
        if not self._pinned:
            self._update(rows, self.stride)
            return
        self._fold_pending()
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        arrived.record()
        self._pending = rows, self.stride, arrived
        self._rows, self._spare = self._spare, self._rows

    def _fold_pending(self) -> None:
        if self._pending is not None:
            (rows, weight, arrived), self._pending = self._pending, None
            arrived.synchronize()
            self._update(rows, weight)

    def _settle(self) -> None:
        self._flush()
        self._fold_pending()

    def _update(self, rows: Tensor, weight: int) -> None:
        sums = self._nothing(rows.shape[1], accumulation_device(rows.device)) if self._sums is None else self._sums
        if isinstance(sums, ShiftedSums):
            self._skipped = add_rows(sums, rows, weight=weight) + self._skipped
        else:
            for part in torch.split(rows, len(sums.rows)):
                sums, skipped = add_to_sketch(sums, part, weight=weight)
                self._skipped = skipped + self._skipped
        self._sums = sums

    def _nothing(self, features: int, device: torch.device | None = None) -> ShiftedSums | Sketch:
        """Return the sums of no rows."""
        sketches = self._accumulation.sketches(features)
        return empty_sketch(features, device=device) if sketches else empty_sums(features, device=device)


def _parts(rows: Tensor, most: int) -> list[Tensor]:
    """Return ``rows`` (…, features) in parts (samples, features) of at most ``most``; only parts are ever copied."""
    if rows.ndim == 2:
        return [rows] if len(rows) <= most else list(torch.split(rows, most))
    inner = rows.shape[1:-1].numel()
    groups = torch.split(rows, max(1, most // inner))
    if rows.stride(-1) != 1 and rows.stride(-2) == 1:
        # Maps are kept position by position, feature after feature: copying them so moves whole runs of memory.
        flat = [group.movedim(-1, 0).flatten(1).T for group in groups]
    else:
        flat = [group.flatten(0, -2) for group in groups]
    return [part for rows in flat for part in torch.split(rows, most)]
