"""Lightning and W&B without what says nothing about the run at hand."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import WandbLogger


def quiet() -> None:
    """Silence Lightning's hardware banner and tips, and warnings that the reader of an example cannot act upon."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # The images are tensors in memory: worker processes would only copy them around.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    # lightning 2.6 asks torch 2.13 an old question.
    warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated.*")


def wandb_logger(project: str, folder: Path, *, mode: str = "offline", **config: Any) -> WandbLogger:
    """Return a logger into ``folder``; offline W&B says nothing in the terminal, the example says where the run is."""
    import wandb

    silent = mode != "online"
    # Before any run: WandbLogger itself makes wandb warn about an option that nobody has set.
    wandb.setup(wandb.Settings(silent=silent))
    return WandbLogger(project=project, save_dir=folder, config=config, mode=mode, settings={"silent": silent})


class ProgressBar(TQDMProgressBar):
    """Lightning's bar with the saturation first, where a narrow terminal still shows it, and no version number."""

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, int | str | float | dict]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return dict(sorted(metrics.items(), key=lambda item: not item[0].startswith("saturation")))
