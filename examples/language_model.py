"""Train a small language model on this project's own documentation and see how full its blocks are.

    python examples/language_model.py

The text is cut into lines of bytes, which differ in length: what fills them up is no data, and `mask` says so. The
vocabulary's layer is an output layer. Leaves language_model.png in the current folder.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from common import quiet
from lightning import LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_saturation import SaturationMonitor

ROOT = Path(__file__).parents[1]
LONGEST = 64
VOCABULARY = 257  # bytes, and one that begins a line


class LanguageModel(LightningModule):
    """A causal transformer over bytes, with cross-entropy on those that are no padding."""

    def __init__(self, *, width: int, layers: int) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, width)
        self.places = nn.Embedding(LONGEST, width)
        block = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        hidden = self.words(tokens) + self.places.weight[:length]
        future = nn.Transformer.generate_square_subsequent_mask(length, device=tokens.device)
        return self.head(self.body(hidden, mask=future, is_causal=True))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return self._loss(batch, "train")

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self._loss(batch, "val")

    def _loss(self, batch: dict[str, Tensor], stage: str) -> Tensor:
        logits = self(batch["tokens"])
        mask = batch["mask"]
        loss = nn.functional.cross_entropy(logits[mask], batch["next"][mask])
        self.log(f"{stage}/loss", loss, on_step=False, on_epoch=True, batch_size=len(mask))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def lines(*patterns: str) -> list[bytes]:
    """Return the lines of the files that match, in pieces of at most ``LONGEST`` bytes."""
    files = sorted(path for pattern in patterns for path in ROOT.glob(pattern))
    text = [line.strip() for path in files for line in path.read_bytes().splitlines()]
    return [line[start : start + LONGEST] for line in text for start in range(0, len(line), LONGEST)]


def collate(batch: list[bytes]) -> dict[str, Tensor]:
    """Return a batch of ``tokens``, the ``next`` of each, and a ``mask`` of those that are no padding."""
    following = torch.zeros(len(batch), max(map(len, batch)), dtype=torch.long)
    mask = torch.zeros_like(following, dtype=torch.bool)
    for row, line in enumerate(batch):
        following[row, : len(line)] = torch.tensor(list(line))
        mask[row, : len(line)] = True
    first = torch.full((len(batch), 1), VOCABULARY - 1)
    return {"tokens": torch.cat([first, following[:, :-1]], 1), "next": following, "mask": mask}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--limit", type=int, help="use so many lines")
    options = parser.parse_args()
    quiet()
    seed_everything(0, verbose=False)
    text = lines("*.md", "docs/*.md", "lightning_saturation/**/*.py")[: options.limit]
    train, held_out = text[: -len(text) // 10], text[-len(text) // 10 :]
    monitor = SaturationMonitor(mask="mask", pooling="mean")
    trainer = Trainer(
        max_epochs=options.epochs,
        callbacks=[monitor],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.fit(
        LanguageModel(width=options.width, layers=options.layers),
        DataLoader(train, 64, shuffle=True, collate_fn=collate),
        DataLoader(held_out, 64, collate_fn=collate),
    )
    padding = 1 - sum(map(len, train)) / (len(train) * LONGEST)
    print(f"\n{len(train)} lines; filled up to {LONGEST} bytes each, {padding:.0%} of them are padding")
    print(f"loss on other lines: {float(trainer.callback_metrics['val/loss']):.2f} nats per byte\n")
    print(f"{monitor.report()}\n\n{monitor.report().by_block()}\n\n{monitor.diagnose()}\n")
    monitor.plot().savefig("language_model.png", dpi=150)
    print("Picture: language_model.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
