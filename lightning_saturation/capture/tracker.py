"""A model's layers, watched over several windows at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from torch import Tensor, nn

from lightning_saturation.capture import compat
from lightning_saturation.capture.capture import Capture
from lightning_saturation.capture.coverage import coverage
from lightning_saturation.capture.layer_shape import LayerShape, layer_shape
from lightning_saturation.capture.missing import MissingLayers
from lightning_saturation.capture.row_kinds import RowKinds, Rows
from lightning_saturation.capture.select import CaptureOptions
from lightning_saturation.capture.window import LayerWindow

_MOST_WAITING = 1000
"""Rows of so many outputs wait for the end of a batch."""

Window = TypeVar("Window", bound=LayerWindow)


class LayerTracker(Generic[Window]):
    """Hooks on the layers of ``model`` and one window per stage, made by ``make_window`` from the layers' names.

    Knows no Trainer. Only between ``record(stage, batch)`` and ``record(None)`` outputs are counted, into that stage's
    window, and of them those for which ``counts()``. ``views`` is that of :class:`Capture`. An output
    layer that is wider than ``widest`` is ``left_out``.

    The first batch of each stage is looked at as it runs, for the data flow that gives order and outputs. Where
    anything is compiled it is only what ``look_once`` or ``attempts`` announce, as the look runs it as it was written;
    or the second batch, with which the window begins anew, where the first showed that nothing of it runs compiled and
    torch would compile what the second is the first to run.
    ``followed`` is whether any look succeeded.
    """

    def __init__(
        self,
        model: nn.Module,
        make_window: Callable[[tuple[str, ...]], Window],
        options: CaptureOptions,
        *,
        stages: Sequence[str],
        views: bool = False,
        widest: int | None = None,
    ) -> None:
        self._capture = Capture(model, None, options, trouble=self._trouble, views=views)
        self._model = model
        self._compiled = compat.may_run_compiled(model)  # asked before attaching makes the compiler forget
        self._flow = self._capture.look.flow
        self._looked: set[str] = set()
        self._before: dict[str, Any] = {}  # by stage that began, what its window held by then, of a checkpoint
        self._late: dict[str, bool] = {}  # by stage that began, whether its next batch may be looked at all the same
        self._widest = widest
        self._wide: dict[str, bool] = {}  # by layer that is wider, whether it is measured
        self._waiting: list[tuple[str, Tensor]] = []  # rows of this batch, in order, until it ends
        self._held: list[tuple[str, Tensor]] = []  # rows of wide layers, until it is known
        self.left_out: dict[str, str] = {}
        self._recording: str | None = None
        self._kinds = RowKinds(options.pooling)
        self._told = MissingLayers(model, chosen=options.layers is not None)
        self.counts: Callable[[], bool] = _always
        self.names = self._capture.names
        self.windows: dict[str, Window] = {stage: make_window(self.names) for stage in stages}

    def attach(self) -> None:
        """Put the hooks onto the model."""
        self._capture.attach()

    def detach(self) -> None:
        """Remove the hooks."""
        try:
            self.record(None)
        finally:
            self._capture.detach()

    def record(self, stage: str | None, batch: Any = None) -> None:
        """Count the outputs for a ``batch`` into the window of ``stage``, or count nothing."""
        self._end_batch()
        if stage is not None:
            # Asking goes through all modules; once the stage has been looked at, no answer changes anything.
            plain = stage not in self._looked and not self._compiled and not compat.may_run_compiled(self._model)
            late = compat.MODES_LET_COMPILE and not (plain or self._looked) and self._late.get(stage, False)
            if late:
                self._begin_anew(stage)
            self._late[stage] = stage not in self._late
            self._begin_batch(stage, batch, may_look=plain or late, eagerly=plain)

    def attempts(self, stage: str, batch: Any) -> Iterator[None]:
        """Yield each time that ``batch`` must run to be counted, twice where its samples turn out to come second.

        It trains nothing, so that the first is looked at whether or not anything is compiled.
        """
        for _ in range(2):
            self._end_batch()
            self._begin_batch(stage, batch, may_look=True)
            yield
            if not self._end_batch():
                return

    @property
    def is_current(self) -> bool:
        """Whether the layers are still those of the model."""
        return self._capture.is_current

    def look_once(self, batch: Any = None) -> None:
        """Look at a batch that trains nothing and is not counted, until the next ``record``; the first time only."""
        self._end_batch()
        if not self._looked:
            self._looked.add("")
            self._capture.begin(batch, look=True)
            self._capture.record = self._look_only

    def shapes(self) -> dict[str, LayerShape]:
        """Return the shape of each layer."""
        return {name: layer_shape(module, self._capture.pooling) for name, module in self._capture.layers.items()}

    def outputs(self, stage: str) -> tuple[str, ...]:
        """Return the layers that feed no other, as far as was looked, else the last one to run in ``stage``."""
        return self._flow.outputs or tuple(self.windows[stage].order[-1:])

    @property
    def followed(self) -> bool:
        """Whether data were followed through a step; else order, outputs and rows are what calls and kinds tell."""
        return bool(self._flow.ran)

    def rows(self) -> dict[str, Rows]:
        """Return what the rows of each layer that ran are."""
        return self._kinds.all(constant=self._flow.constant)

    @property
    def masked(self) -> tuple[str, ...]:
        """The layers of which padding was left out."""
        return tuple(name for name in self.names if name in self._capture.masked)

    def without_measure(self, seen: Sequence[str]) -> dict[str, str]:
        """Return the tracked layers that are not among those ``seen``, and why."""
        reasons = dict.fromkeys(self.names, "did not run, or where hooks do not fire")
        reasons |= dict.fromkeys(self._capture.sharded, "only a shard of its width was seen")
        reasons |= self._told.troubles | self.left_out
        return {name: reason for name, reason in reasons.items() if name not in seen}

    def _take(self, name: str, rows: Tensor) -> None:
        if self._recording is None or not self.counts():
            return
        if self._capture.fresh and len(self._waiting) < _MOST_WAITING:
            self._waiting.append((name, rows))
            return
        self._keep_waiting()
        self._keep(name, rows)

    def _keep_waiting(self) -> None:
        """Take in what waits, layer by layer: in a row that takes a third of the time that it takes amid a step."""
        waiting, self._waiting = self._waiting, []
        for name, rows in waiting:
            self._keep(name, rows)

    def _keep(self, name: str, rows: Tensor) -> None:
        if self._recording is None:
            return
        window = self.windows[self._recording]
        self._kinds.count(name, rows.shape[0] if rows.ndim == 2 else rows.shape[:-1].numel())
        if self._widest is None or rows.shape[-1] <= self._widest or self._wide.get(name):
            window.add(name, rows)
        else:
            window.note(name)
            self._held.append((name, rows.clone()))

    def _look_only(self, name: str, rows: Tensor) -> None:
        """Learn from an output that is not counted where its layer has its samples."""

    def _begin_batch(self, stage: str, batch: Any, *, may_look: bool, eagerly: bool = True) -> None:
        look = may_look and stage not in self._looked
        if look:
            self._looked.add(stage)
        window = self.windows[stage]
        if stage not in self._before:
            self._before[stage] = None if window.is_empty else window.to_state()
        self._capture.begin(batch, look=look, eagerly=eagerly)
        self._recording, self._capture.record = stage, self._take
        window.begin_batch()

    def _begin_anew(self, stage: str) -> None:
        """Forget what was counted before it was known what to count."""
        window, before = self.windows[stage], self._before.get(stage)
        if before is None or window.is_empty:
            window.reset()
            self._before[stage] = None
        else:
            window.load_state(before)
        for forgotten in (self._wide, self.left_out, self._capture.masked, self._capture.dropped):
            forgotten.clear()
        self._kinds.forget()

    def _end_batch(self) -> bool:
        """End the batch that is running, and return whether it must run again."""
        self._keep_waiting()
        looked, samples = self._capture.look.is_open, self._capture.samples
        self._capture.end()
        if looked:
            for window in self.windows.values():
                window.arrange(self._flow.ran)
        held, self._held = self._held, []
        stage, self._recording, self._capture.record = self._recording, None, None
        if stage is None:
            return False
        if self._capture.must_repeat:  # its rows were those of positions
            self._begin_anew(stage)
            self._looked.discard(stage)
            self._late[stage] = not compat.runs_compiled(self._model)
            return True
        # Attaching has made the compiler forget: what ran compiled has been compiled since.
        self._late[stage] = not looked and self._late.get(stage, False) and not compat.runs_compiled(self._model)
        if not self._late[stage]:
            self._before[stage] = None
        self._kinds.end_batch(samples)
        outputs = self.outputs(stage) if held and len(self.windows[stage].order) > 1 else ()
        for name, rows in held:
            if self._wide.setdefault(name, name not in outputs):
                self.windows[stage].add(name, rows)
            else:
                self._capture.dropped.add(self.names.index(name))
                self.left_out[name] = (
                    f"an output layer of {rows.shape[-1]} features, more than {self._widest}: name it in `layers`"
                )
        return False

    def coverage(self, seen: Sequence[str]) -> float | None:
        """Return the share of the model's weights in the layers that were ``seen``, None where it has none."""
        return coverage(self._model, seen)

    def warn_about_missing(self, seen: Sequence[str]) -> None:
        """Warn, once each, of tracked layers that are not among those ``seen``, and of types that nobody knows."""
        self._told.warn(
            [n for n in self.names if n not in seen and n not in self.left_out], self._capture.sharded, seen
        )

    def _trouble(self, name: str, error: Exception) -> None:
        self._told.troubles[name] = str(error)
        if self._recording is not None:
            self.windows[self._recording].trouble(name, error)


def _always() -> bool:
    return True
