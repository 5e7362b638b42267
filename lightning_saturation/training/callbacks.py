"""The callbacks beside which one of ours runs."""

from __future__ import annotations

from lightning.pytorch import Callback, Trainer


def callbacks_of(trainer: Trainer) -> list[Callback]:
    """Return the callbacks of ``trainer``, the list itself; Lightning sets it where no type checker sees it."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return callbacks
