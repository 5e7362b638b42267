"""Progress that checkpoints keep, and that comes back from processes that a strategy started."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any
from weakref import ref

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_saturation.training.handover import Handover
from lightning_saturation.training.instrument import Report
from lightning_saturation.training.window_closer import WindowCloser

VERSION = 1
"""Of what checkpoints hold."""


class Resumable(WindowCloser[Report], Callback):
    """Keeps progress, never configuration: reports, the clock and an open window.

    Fields that a version does not know are ignored, missing ones are NaN or as at the start, so that any checkpoint can
    be read.
    """

    name: str
    _handover: Handover
    _trainer: ref[Trainer] | None
    _evaluates: bool
    _resumed: bool
    _open_window: Any

    @property
    def reports(self) -> list[Report]:
        """The report of every closed window, oldest first."""
        self.take_back()
        return self._reports

    def take_back(self) -> None:
        """Take up what a process that a strategy started has found, if it left anything."""
        with self._guard("read what a started process left"):
            left = self._handover.take()
            if left is not None:
                self._load(left)

    @property
    def state_key(self) -> str:
        """The key of this callback's state in a checkpoint: its name, so that other arguments may change."""
        if self._trainer is None:  # Trainers refuse two callbacks of one key before `setup` can tell these apart
            return self._generate_state_key(name=self.name, number=id(self))
        return self._generate_state_key(name=self.name)

    def state_dict(self) -> dict[str, Any]:
        """Return progress: reports, the clock, and the rows of an open window where they are few enough."""
        with self._guard("save its progress"):
            window = self._window_state() if self._clock.batches else None
            return {"version": VERSION, "clock": self._clock.to_state(), "window": window, **self._progress()}
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up progress; arguments stay those of this run, and fields that are unknown or missing do no harm.

        Lightning also calls this before it evaluates a checkpoint, which is no reason to forget what came after it.
        """
        if not self._evaluates:
            self._resumed = True
            self._load(state_dict)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take up progress that an earlier version kept under a key of more than the name."""
        states = checkpoint.get("callbacks", {})
        if self.state_key not in states:
            begin = f"{type(self).__qualname__}{{'name': {self.name!r},"
            for key in [key for key in states if str(key).startswith(begin)]:
                self.load_state_dict(copy.deepcopy(states[key]))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_trainer": None}  # a copy belongs to no Trainer

    def _load(self, state: Mapping[str, Any]) -> None:
        with self._guard("read a checkpoint's progress"):
            clock = state.get("clock")
            if isinstance(clock, Mapping):
                self._clock.load_state(clock)
                self._open_window = state.get("window")
            else:  # a checkpoint from before there was a clock
                self._clock.restart(-1)
            self._load_progress(state)
