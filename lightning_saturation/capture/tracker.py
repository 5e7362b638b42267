"""A model's layers, watched over several windows at once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from torch import Tensor, nn

from lightning_saturation.capture import compat
from lightning_saturation.capture.capture import Capture
from lightning_saturation.capture.coverage import ENOUGH, coverage, unknown_layers
from lightning_saturation.capture.look import Look
from lightning_saturation.capture.pooling import Pooling
from lightning_saturation.capture.window import LayerWindow

Window = TypeVar("Window", bound=LayerWindow)


class LayerTracker(Generic[Window]):
    """Hooks on the layers of ``model`` and one window per stage, made by ``make_window`` from the layers' names.

    Knows no Trainer. Only between ``record(stage)`` and ``record(None)`` outputs are counted, into that stage's window.
    ``views`` are those of :class:`Capture`. An output layer that is wider than ``widest`` is ``left_out``.

    The first batch of each stage is looked at as it runs, for the data flow that gives order and outputs; where
    anything is compiled only what ``look_once`` announces, as the look runs it as it was written.
    """

    def __init__(
        self,
        model: nn.Module,
        make_window: Callable[[tuple[str, ...]], Window],
        *,
        stages: Sequence[str],
        layers: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
        pooling: Pooling = "mean",
        views: bool = False,
        widest: int | None = None,
    ) -> None:
        self._capture = Capture(
            model, None, layers=layers, exclude=exclude, pooling=pooling, trouble=self._trouble, views=views
        )
        self._model, self._chosen = model, layers is not None
        self._compiled = compat.may_run_compiled(model)  # asked before attaching makes the compiler forget
        self._look = self._capture.look = Look(model, self._capture.layers)
        self._looked: set[str] = set()
        self._widest = widest
        self._wide: dict[str, bool] = {}  # by layer that is wider, whether it is measured
        self._held: list[tuple[str, Tensor]] = []  # rows of wide layers, until it is known
        self.left_out: dict[str, str] = {}
        self._recording: str | None = None
        self._warned: set[str] = set()
        self._told = False
        self.names = self._capture.names
        self.windows: dict[str, Window] = {stage: make_window(self.names) for stage in stages}

    def attach(self) -> None:
        """Put the hooks onto the model."""
        self._capture.attach()

    def detach(self) -> None:
        """Remove the hooks."""
        self.record(None)
        self._capture.detach()

    def record(self, stage: str | None) -> None:
        """Count the outputs of a batch into the window of ``stage``, or nowhere."""
        self._end_batch()
        self._recording = stage
        self._capture.record = None if stage is None else self._take
        if stage is not None:
            self.windows[stage].begin_batch()
            if stage not in self._looked and not self._compiled and not compat.may_run_compiled(self._model):
                self._looked.add(stage)
                self._look.begin()

    def look_once(self) -> None:
        """Look at a batch that trains nothing and is not counted, until the next ``record``; the first time only."""
        self._end_batch()
        if not self._looked:
            self._looked.add("")
            self._look.begin()

    def outputs(self, stage: str) -> tuple[str, ...]:
        """Return the layers that feed no other, as far as was looked, else the last one to run in ``stage``."""
        return self._look.flow.outputs or tuple(self.windows[stage].order[-1:])

    def without_measure(self, seen: Sequence[str]) -> dict[str, str]:
        """Return the tracked layers that are not among those ``seen``, and why."""
        reasons = dict.fromkeys(self.names, "did not run, or where hooks do not fire")
        reasons |= dict.fromkeys(self._capture.sharded, "only a shard of its width was seen")
        return {name: reason for name, reason in (reasons | self.left_out).items() if name not in seen}

    def _take(self, name: str, rows: Tensor) -> None:
        if self._recording is None:
            return
        window = self.windows[self._recording]
        if self._widest is None or rows.shape[-1] <= self._widest or self._wide.get(name):
            window.add(name, rows)
        else:
            window.note(name)
            self._held.append((name, rows.clone()))

    def _end_batch(self) -> None:
        if self._look.is_open:
            self._look.end()
            for window in self.windows.values():
                window.arrange(self._look.flow.ran)
        held, self._held = self._held, []
        if self._recording is None:
            return
        order = self.windows[self._recording].order
        outputs = self.outputs(self._recording) if len(order) > 1 else ()
        for name, rows in held:
            if self._wide.setdefault(name, name not in outputs):
                self.windows[self._recording].add(name, rows)
            else:
                self._capture.drop(name)
                self.left_out[name] = (
                    f"an output layer of {rows.shape[-1]} features, more than {self._widest}: name it in `layers`"
                )

    def coverage(self, seen: Sequence[str]) -> float | None:
        """Return the share of the model's weights in the layers that were ``seen``, None where it has none."""
        return coverage(self._model, seen)

    def warn_about_missing(self, seen: Sequence[str]) -> None:
        """Warn, once each, of tracked layers that are not among those ``seen``, and of types that nobody knows."""
        self._warn_of_unknown(seen)
        missing = [n for n in self.names if n not in seen and n not in self._warned and n not in self.left_out]
        self._warned.update(missing)
        sharded = [name for name in missing if name in self._capture.sharded]
        if sharded:
            warnings.warn(
                f"No saturation for {sharded}: their outputs are narrower than the layers say, as with tensor"
                " parallelism, and a shard's saturation would be a wrong number.",
                stacklevel=2,
            )
        unseen = [name for name in missing if name not in sharded]
        if unseen:
            warnings.warn(
                f"No saturation for {unseen}: these layers were never run in the window, or run where hooks do not"
                " fire (a function compiled around them, a fused kernel). Take them out with `exclude`.",
                stacklevel=2,
            )

    def _warn_of_unknown(self, seen: Sequence[str]) -> None:
        unknown = {} if self._chosen or self._told else unknown_layers(self._model)
        self._told = True
        if sum(unknown.values()) <= 1 - ENOUGH:
            return
        types = ", ".join(f"{kind} ({share:.0%})" for kind, share in unknown.items() if share >= 0.01)
        warnings.warn(
            f"Only {self.coverage(seen) or 0:.0%} of the network's weights are in layers that are seen. Of no known"
            f" kind are {types}: tell of such types with `register_layer`, or name modules with `layers`.",
            stacklevel=3,
        )

    def _trouble(self, name: str, error: Exception) -> None:
        if self._recording is not None:
            self.windows[self._recording].trouble(name, error)
