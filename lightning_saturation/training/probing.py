"""A run's probes, and the weights with which a comparison begins, until there are probes to run through them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_saturation.capture.evaluation import Forward
from lightning_saturation.capture.options import CaptureOptions
from lightning_saturation.capture.represent import Rows
from lightning_saturation.training.guard import Guard
from lightning_saturation.training.probe_batches import ProbeBatches
from lightning_saturation.training.probe_forward import represent_probes, weights_of


class Probing:
    """Shows the layers what ``passed`` holds, or the first ``samples`` samples of the run itself.

    The run delivers its samples while it trains already: a copy of the weights before the first step waits for them.
    """

    def __init__(
        self,
        passed: Iterable[Any] | None,
        samples: int,
        options: CaptureOptions,
        *,
        forward: Forward | None,
        guard: Guard,
    ) -> None:
        self._passed, self._samples = passed, samples
        self._options, self._forward, self._guard = options, forward, guard
        self._batches = ProbeBatches(None, samples)
        self._baseline: dict[str, Tensor] | None = None

    def begin(self, trainer: Trainer, module: LightningModule, *, anew: bool, compare: bool) -> None:
        """Begin a run, ``anew`` or where a checkpoint left off; ``compare`` says that its first weights are wanted."""
        if anew:
            self._batches = ProbeBatches(self._passed, self._samples)
        if compare and (anew or self._baseline is None):
            self._baseline = weights_of(module)
        if self._passed is None and not self._batches.batches:
            self._batches.share(trainer.world_size)

    def watch(self, batch: Any) -> None:
        """Take of a ``batch`` of training what is still wanted."""
        if self._baseline is not None and not self._batches.are_complete:
            self._batches.take(batch)

    @property
    def is_due(self) -> bool:
        """Whether the first weights still wait for probes."""
        return self._baseline is not None

    def first_rows(self, trainer: Trainer, module: LightningModule, group: Any) -> Rows:
        """Return the rows of the first weights, now that there are probes; once, and a collective call."""
        if self._passed is None:
            self._batches.agree(group)
        if not self._batches.batches:
            raise ValueError("Expected `probes` or training data with at least one sample, got none.")
        rows = self.rows(trainer, module, self._baseline)
        self._baseline = None
        return rows

    def rows(self, trainer: Trainer, module: LightningModule, weights: Mapping[str, Tensor] | None = None) -> Rows:
        """Return the rows of every layer, of ``module`` as it is or with other ``weights``."""
        return represent_probes(
            trainer,
            module,
            self._batches.batches,
            self._options,
            guard=self._guard,
            weights=weights,
            forward=self._forward,
        )

    def to_state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: the probes, where they are the run's own, and weights that still wait."""
        return {"probes": self._batches.to_state() if self._passed is None else None, "baseline": self._baseline}

    def load_state(self, state: Mapping[str, Any], *, samples: int | None) -> bool:
        """Go on where ``state`` was written, and return whether the probes are those of its rows, ``samples`` many."""
        self._baseline = state.get("baseline")
        self._batches = ProbeBatches(self._passed, self._samples)
        if self._passed is None and state.get("probes"):
            self._batches.load_state(state["probes"])
            return True
        return samples is None or samples == self._batches.total
