"""What a run leaves behind: losses, accuracies and learning rates by epoch, statistics by stage, layer and window."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint

from lightning_saturation import SaturationReport

STATISTICS = (
    "saturation",
    "continuous_saturation",
    "effective_rank",
    "participation_ratio",
    "stable_rank",
    "total_variance",
)


class History(Callback):
    """Keeps a row for each epoch: what was logged, the time it took, where a run was taken up again."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self._resumed = False
        self._clocks = (0.0, 0.0)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._clocks = time.perf_counter(), time.process_time()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Everything logged so far in the epoch, that of the validation at its end included.
        values = {key: float(value) for key, value in trainer.callback_metrics.items() if "/layer" not in key}
        kept = {key: value for key, value in values.items() if not key.startswith("saturation/") or _is_summary(key)}
        seconds, processor = time.perf_counter() - self._clocks[0], time.process_time() - self._clocks[1]
        row = {"epoch": trainer.current_epoch, "step": trainer.global_step, **kept}
        row |= {"seconds": seconds, "processor_seconds": processor}
        if self._resumed:
            row["resumed"], self._resumed = True, False
        self.rows.append(rounded(row))

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = list(state_dict["rows"])
        self._resumed = True


class LastEpoch(Checkpoint):
    """Keeps one checkpoint, that of the last complete epoch; a run killed while writing it still has the one before."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        beside = self.path.with_suffix(".new")
        trainer.save_checkpoint(beside)
        beside.replace(self.path)


def series(reports: Sequence[SaturationReport], stage: str) -> dict[str, Any]:
    """Return the windows of ``stage`` as lists over time: every statistic by layer, and the learning rates."""
    windows = [report for report in reports if report.stage == stage]
    if not windows:
        return {}
    last = windows[-1]
    return {
        "layers": list(last.layers),
        "output": list(last.output_layers),
        "features": [layer.features for layer in last.layers.values()],
        "samples": [layer.samples for layer in last.layers.values()],
        "epoch": [report.epoch for report in windows],
        "lr": rounded([list(report.learning_rates) for report in windows]),
        **{
            name: {layer: rounded([getattr(r.layers[layer], name) for r in windows]) for layer in last.layers}
            for name in STATISTICS
        },
    }


def rounded(value: Any, digits: int = 5) -> Any:
    """Return ``value`` with every float in it to so many significant digits; None stands for what is not finite."""
    if isinstance(value, dict):
        return {key: rounded(item, digits) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item, digits) for item in value]
    if isinstance(value, float):
        return float(f"{value:.{digits}g}") if math.isfinite(value) else None
    return value


def write(path: Path, record: dict[str, Any]) -> None:
    """Write ``record`` as JSON, a line per entry of the upper two levels, whole or not at all."""
    lines = [f"{json.dumps(key)}: {_text(value)}" for key, value in record.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(f".{os.getpid()}")
    beside.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    beside.replace(path)


def read(path: Path) -> dict[str, Any]:
    """Return a run's record; an empty one where there is no file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _text(value: Any) -> str:
    if not isinstance(value, dict) or not value:
        return _dumped(value)
    return "{\n" + ",\n".join(f"  {json.dumps(key)}: {_dumped(item)}" for key, item in value.items()) + "\n}"


def _dumped(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def _is_summary(key: str) -> bool:
    return key.rsplit("/", 1)[-1] in ("average", "change", "converged")
