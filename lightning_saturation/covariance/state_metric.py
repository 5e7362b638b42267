"""What every metric here has in common: exact state that is moved but never cast, and that an error leaves alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_saturation.covariance.ranks import all_reduce, is_distributed, together

State = TypeVar("State", bound=NamedTuple)


class StateMetric(Metric):
    """A metric whose states derived classes merge: other metrics' in ``_reduce_states``, ranks' in ``_merge_ranks``.

    Casts of a parent module do not reach the state. A ``forward`` or a synchronisation that fails leaves it as it was.
    ``skipped`` counts rows that were left out; over ranks it is summed here. ``dist_sync_fn`` is not used.
    """

    is_differentiable: bool | None = False
    higher_is_better: bool | None = None
    full_state_update: bool | None = False

    samples: Tensor
    skipped: Tensor

    def __init__(self, **kwargs: Any) -> None:
        # A rank without new rows would return its cached value and leave the others waiting in the collective.
        kwargs.setdefault("compute_with_cache", False)
        super().__init__(**kwargs)
        self.add_state("skipped", torch.zeros((), dtype=torch.int64))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Update, and return the value of this batch alone."""
        # Meanwhile torchmetrics sets aside what was accumulated, and would lose it to an error.
        with self._undone_on_error(in_place=bool(self.full_state_update or self.dist_sync_on_step)):
            return super().forward(*args, **kwargs)

    @contextmanager
    def sync_context(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        """Hold the state of all ranks, and this rank's own again afterwards, also where something fails."""
        with self._undone_on_error(), super().sync_context(*args, **kwargs):
            yield

    @contextmanager
    def _undone_on_error(self, *, in_place: bool = False) -> Iterator[None]:
        before = dict(self.__dict__)
        if in_place:  # these `forward`s add to what was accumulated before they set it aside
            before |= {name: state.clone() for name, state in self.metric_state.items() if isinstance(state, Tensor)}
        try:
            yield
        except Exception:
            self.__dict__.update(before)
            raise

    def _synced(self) -> AbstractContextManager[None]:
        """Return a context with the state of all ranks; inside of ``compute`` it is that already."""
        pending = self._to_sync and not self._is_synced
        return self.sync_context(
            should_sync=pending, should_unsync=pending, distributed_available=self.distributed_available_fn
        )

    def _sync_dist(self, dist_sync_fn: Callable[..., Any] | None = None, process_group: Any = None) -> None:
        group = process_group or self.process_group
        if is_distributed(group):
            with together(group):
                self._merge_ranks(group)
                self.skipped = all_reduce(self.skipped, group)

    def _merge_ranks(self, group: Any) -> None:
        """Make the state that of all ranks, but for ``skipped``; a collective call."""
        raise NotImplementedError

    def _add_states(self, empty: NamedTuple) -> None:
        for name, default in empty._asdict().items():
            self.add_state(name, default)

    def _get(self, kind: type[State]) -> State:
        """Return the states that a ``kind`` of named tuple names."""
        return kind(*(getattr(self, name) for name in kind._fields))

    def _set(self, state: NamedTuple) -> None:
        for name, tensor in state._asdict().items():
            setattr(self, name, tensor)

    def _reduce_states(self, incoming_state: dict[str, Any]) -> None:
        self.skipped = self.skipped + incoming_state["skipped"].to(self.skipped.device)

    def _nan(self) -> Tensor:
        return torch.tensor(torch.nan, dtype=torch.float64, device=self.samples.device)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # torchmetrics takes over the tensors themselves, and rows are added in place: a checkpoint would change.
        for name in self._defaults:
            if prefix + name in state_dict:
                state_dict[prefix + name] = state_dict[prefix + name].clone()
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Any = "") -> Any:
        # Only moves: float64 sums cast to bfloat16 by a parent's `.to(dtype)` would never come back.
        def move(tensor: Tensor) -> Tensor:
            target = fn(torch.empty(0, dtype=torch.float32, device=tensor.device)).device
            return tensor.to(accumulation_device(target))

        return super()._apply(move, exclude_state)


class PlottedMetric(StateMetric):
    """A metric whose value can be drawn."""

    def plot(self, val: Tensor | Sequence[Tensor] | None = None, ax: Any = None) -> Any:
        """Return a matplotlib figure and axes of one value or of several over time."""
        return self._plot(val, ax)


def check_rows(x: Any, features: int) -> None:
    """Raise a ``TypeError`` or ``ValueError`` unless ``x`` is real rows of so many ``features``, 0 for any number."""
    if not isinstance(x, Tensor) or x.is_complex() or x.dtype == torch.bool:
        raise TypeError(f"Expected `x` to be a real tensor, got {getattr(x, 'dtype', type(x).__name__)}.")
    if x.ndim != 2 or not x.shape[1]:
        raise ValueError(f"Expected `x` of shape (samples, features), got {tuple(x.shape)}.")
    if len(x) and features not in (0, x.shape[1]):
        raise ValueError(f"Expected `x` with {features} features as before, got {x.shape[1]}.")


def accumulation_device(device: torch.device) -> torch.device:
    """Return ``device``, or the CPU where ``device`` has no float64 (Apple's MPS)."""
    return torch.device("cpu") if device.type == "mps" else device
