"""All tracked layers over one window."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_saturation.capture.row_kinds import Rows
from lightning_saturation.capture.select import CaptureOptions, choose_output_layers
from lightning_saturation.capture.tracker import LayerTracker
from lightning_saturation.capture.window import LayerWindow
from lightning_saturation.covariance.accumulation import WIDEST_EXACT, Accumulation, accumulation
from lightning_saturation.covariance.eigenvalues import eigenvalues_of_few, eigenvalues_over_ranks
from lightning_saturation.covariance.moments import Moments
from lightning_saturation.covariance.ranks import all_reduce, gather, is_distributed
from lightning_saturation.covariance.reduction import agree, all_reduce_moments, merge_over_ranks
from lightning_saturation.covariance.row_buffer import RowBuffer
from lightning_saturation.covariance.sketch import sketch_size
from lightning_saturation.saturation.report.layer import LayerStatistics, with_rows
from lightning_saturation.saturation.report.report import SaturationReport


class Window(LayerWindow):
    """What the layers called ``names`` put out since the last ``reset``, kept as ``accumulation`` says."""

    quantity = "saturation"
    _kept: dict[str, RowBuffer]

    def __init__(self, names: Sequence[str], accumulation: Accumulation = Accumulation()) -> None:  # noqa: B008
        super().__init__(names)
        self._accumulation = accumulation

    def statistics(self, *, delta: float, group: Any = None) -> dict[str, LayerStatistics]:
        """Return the statistics of every layer that any rank saw, the same on all ranks; a collective call.

        Layers come in the order in which they run. Raises ``RuntimeError`` on all ranks when they disagree about the
        tracked layers or a layer's width.
        """
        seen = [name for name in self.order if name in self.seen]
        unseen = [name for name in self.names if name not in self.seen]
        widths = agree({**{name: self._kept[name].features for name in seen}, **dict.fromkeys(unseen)}, group=group)
        wide = {name: width for name, width in widths.items() if self._accumulation.sketches(width)}
        exact = {name: width for name, width in widths.items() if name not in wide}
        few = {} if is_distributed(group) else self._few(exact)
        many = {name: width for name, width in exact.items() if name not in few}
        local = {name: self._kept[name] if name in self.seen else None for name in widths}
        moments = all_reduce_moments(
            {name: b.moments() if (b := local[name]) else None for name in many}, group=group, widths=many
        )
        sizes = {name: sketch_size(width) for name, width in wide.items()}
        sketches = merge_over_ranks(
            {name: b.sketch() if (b := local[name]) else None for name in wide}, wide, sizes, group=group
        )
        counts = self._counts([name for name in widths if name not in few], group)
        counts |= {name: _Counts(len(rows.finite), rows.skipped) for name, rows in few.items()}
        moments = {name: _per_row(m, counts[name].samples) for name, m in moments.items()}
        eigenvalues = eigenvalues_over_ranks(moments, group=group)
        eigenvalues |= eigenvalues_of_few({name: rows.finite for name, rows in few.items() if len(rows.finite)})
        return {
            name: LayerStatistics.from_eigenvalues(
                eigenvalues.get(name), features=width, **counts[name]._asdict(), delta=delta
            )
            if name in exact
            else LayerStatistics.from_sketch(sketches[name], *counts[name], delta=delta)
            for name, width in widths.items()
        }

    def _keep(self, name: str, rows: Tensor) -> bool:
        if name not in self._kept:
            self._kept[name] = RowBuffer(self._accumulation)
        self._kept[name].add(rows, batches=self.batches)
        return bool(rows.shape[:-1].numel())

    def _load_layer(self, name: str, state: Mapping[str, Any]) -> None:
        self._kept[name] = RowBuffer(self._accumulation)
        self._kept[name].load_state(state)

    def _few(self, exact: Iterable[str]) -> dict[str, _Few]:
        """Return the rows of the layers that have fewer of them than features, which need no covariance."""
        few = {name: self._kept[name].few() for name in exact if name in self.seen}
        kept = {name: (rows, rows.isfinite().all(1)) for name, rows in few.items() if rows is not None}
        return {name: _Few(rows[finite], int((~finite).sum())) for name, (rows, finite) in kept.items()}

    def _counts(self, names: Sequence[str], group: Any) -> dict[str, _Counts]:
        """Return, by layer, how many rows were taken and how many skipped over all ranks."""
        counts = torch.zeros(len(names), 2, dtype=torch.int64)
        for index, name in enumerate(names):
            if name in self.seen:
                counts[index] = torch.tensor([self._kept[name].taken, self._kept[name].skipped])
        counts = all_reduce(counts, group)
        return {name: _Counts(*pair) for name, pair in zip(names, counts.tolist(), strict=True)}


class Seen(NamedTuple):
    """What was seen of layers: which are ``outputs``, what their ``rows`` are, and which were ``masked``; ``followed``
    is whether data were followed through a step.
    """

    outputs: tuple[str, ...]
    rows: dict[str, Rows]
    masked: tuple[str, ...]
    followed: bool


def seen_over_ranks(tracker: LayerTracker[Window], stage: str, group: Any) -> Seen:
    """Return what all ranks have seen, the same on each; a collective call.

    Outputs are those on every rank that saw them, and a layer's rows those on the first.
    """
    own = Seen(tracker.outputs(stage), tracker.rows(), tracker.masked, tracker.followed)
    everyone = gather((tuple(tracker.windows[stage].order), own), group)
    inner = {name for ran, seen in everyone for name in ran if name not in seen.outputs}
    outputs = dict.fromkeys(name for _, seen in everyone for name in seen.outputs if name not in inner)
    rows = {name: kind for _, seen in reversed(everyone) for name, kind in seen.rows.items()}
    masked = dict.fromkeys(name for _, seen in everyone for name in seen.masked)
    return Seen(tuple(outputs), rows, tuple(masked), all(seen.followed for _, seen in everyone))


def report_of(
    tracker: LayerTracker[Window], stage: str, *, delta: float, output_layers: Sequence[str] | None, group: Any
) -> SaturationReport:
    """Return the report of the window of ``stage`` as it stands, without epoch and step; a collective call.

    It has no layers where no rank saw any.
    """
    statistics = tracker.windows[stage].statistics(delta=delta, group=group)
    seen = seen_over_ranks(tracker, stage, group)
    shapes, layers = tracker.shapes(), with_rows(statistics, seen.rows)
    return SaturationReport(
        layers={name: replace(layer, **shapes[name]._asdict()) for name, layer in layers.items()},
        stage=stage,
        delta=delta,
        output_layers=choose_output_layers(list(statistics), output_layers, seen.outputs),
        coverage=tracker.coverage(list(statistics)),
        left_out=tracker.without_measure(list(statistics)),
        masked=seen.masked,
        followed=seen.followed,
    )


def saturation_tracker(
    model: nn.Module,
    options: CaptureOptions = CaptureOptions(),  # noqa: B008
    *,
    stages: Sequence[str],
    output_layers: Sequence[str] | None = None,
    kept: Accumulation | None = None,
) -> LayerTracker[Window]:
    """Return hooks on the layers of ``model`` with a :class:`Window` per stage, whose rows are ``kept`` as it says.

    Where neither ``layers`` nor ``output_layers`` were chosen, an output layer too wide for an exact covariance, as the
    vocabulary of a language model is, is left out: it costs more than all others, and is not in the average.
    """
    rows = accumulation(pooling=options.pooling) if kept is None else kept
    return LayerTracker(
        model,
        lambda names: Window(names, rows),
        options,
        stages=stages,
        views=True,  # a budget chooses among positions before any of them is copied
        widest=WIDEST_EXACT if options.layers is None and output_layers is None else None,
    )


class _Few(NamedTuple):
    finite: Tensor
    skipped: int


class _Counts(NamedTuple):
    samples: int
    skipped: int


def _per_row(moments: Moments, taken: int) -> Moments:
    """Return ``moments`` as those of ``taken`` rows: under a budget each row was counted for all that it stands for."""
    if int(moments.samples) == taken:
        return moments
    share = taken / max(int(moments.samples), 1)
    return Moments(torch.full_like(moments.samples, taken), moments.mean, moments.scatter * share)
