"""What a monitor says for itself: what it watches, what a window comes to, what it keeps and shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from lightning.pytorch import LightningModule, Trainer

from lightning_saturation.training.configuration import configuration

Report = TypeVar("Report", bound=Any)


class Measured(NamedTuple):
    """What a window came to: a ``report`` to keep, the ``values`` to log by key, and what was ``judged`` of them.

    All of it is the same on all ranks.
    """

    report: Any
    values: Mapping[str, float]
    judged: Any = None


class Instrument(Generic[Report]):
    """What a subclass of :class:`Monitor` overrides; by itself it watches nothing.

    Whatever these methods raise becomes a warning and a gap, except in ``_prepare``, before the first batch, which may
    refuse. Those that are collective calls run on all ranks inside of one section: a failure on one is one on all.
    """

    shown: ClassVar[dict[str, str]] = {}
    """What the progress bar shows: short ends of keys by ends of keys."""

    kept: ClassVar[tuple[str, ...]] = ("_reports",)
    """Attributes that closing a window changes; where one rank fails, all of them go back to what they were."""

    parts: ClassVar[tuple[str, ...]] = ()
    """Attributes that hold arguments of the callback in their turn."""

    meets_in_batches: bool = False
    """Whether ``_watch`` and ``_after_batch`` are collective calls in training, which costs a handshake a batch."""

    _reports: list[Report]

    def _prepare(self, trainer: Trainer, pl_module: LightningModule, stages: Sequence[str]) -> None:
        """Get ready to watch ``stages``, or raise what the user has to mend; a collective call."""

    def _begin(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do what is due before the first batch of training; a collective call."""

    def _watch(self, trainer: Trainer, pl_module: LightningModule, stage: str, batch: Any) -> None:
        """Watch the forward passes of ``batch``."""

    def _look_away(self) -> None:
        """Watch no longer, until the next batch."""

    def _after_batch(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do what is due after a batch of training; only where ``meets_in_batches`` says so."""

    def _glance(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the open training window, because a validation begins inside of it."""

    def _measure(
        self, trainer: Trainer, pl_module: LightningModule, stage: str, *, epoch: int, partial: bool
    ) -> Measured | None:
        """Return what the window of ``stage`` came to, None where nothing was seen; a collective call."""
        raise NotImplementedError

    def _keep(self, measured: Measured) -> None:
        """Keep what was measured, in attributes named in ``kept``."""
        if measured.report is not None:
            self._reports.append(measured.report)

    def _reset(self, stage: str) -> None:
        """Start the next window of ``stage``."""

    def _write_window(self, trainer: Trainer, measured: Measured, step: int) -> None:
        """Write to the loggers what they show of a window beyond its values; on rank 0 only."""

    def _write(self, trainer: Trainer, step: int) -> None:
        """Write what loggers and files show of all reports; on rank 0 only."""

    def _after_epoch(self, trainer: Trainer, epoch: int) -> None:
        """Look at what was logged in an epoch that ended; once the module's own hooks have run, again."""

    def _arguments(self) -> dict[str, Any]:
        """Return the arguments by name, as plain data, for the configuration of a run."""
        return configuration(self, *(getattr(self, part) for part in self.parts))

    def _end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do what is due after the last window of a training that came to its end; a collective call."""

    def _leave(self) -> None:
        """Leave the model as it was found."""

    def _progress(self) -> dict[str, Any]:
        """Return what a checkpoint keeps beyond the clock, without collectives."""
        return {"reports": [report.to_state() for report in self._reports]}

    def _load_progress(self, state: Mapping[str, Any]) -> None:
        """Take up what ``_progress`` returned; fields may be missing."""
        raise NotImplementedError

    def _window_state(self) -> Any:
        """Return the rows of the open training window, or None where they are too many to carry."""
        return None

    def _load_window(self, state: Any) -> bool:
        """Take up what ``_window_state`` returned, and return whether the window goes on with it."""
        return False

    def _has_something_to_write(self) -> bool:
        """Return whether ``_write`` has anything to show."""
        return bool(self._reports)
