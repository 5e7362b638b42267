"""What watching costs per training step: within one fit, two of every four steps are watched (1 0 0 1).

    python benchmarks/overhead.py                        # VGG11 and the transformer, 320 steps each variant
    python benchmarks/overhead.py --only ResNet --clock cpu

A step watched is compared with its neighbours, which a machine that changes its speed slows alike, in the same network
with the same weights: the trimmed mean of the differences within four steps, over that of the steps not watched.
Folding rows into the covariance falls on few steps, which trimming would hide: it is timed by itself, all of it, and
added as its mean. Closing a window (the eigenproblems, once an epoch) is given apart, in steps.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from interleaved import machine, table, wait
from lightning.pytorch import Callback, LightningModule, Trainer
from networks import NETWORKS, Batch
from torch import nn
from torch.utils.data import DataLoader

from lightning_saturation import SaturationMonitor
from lightning_saturation.covariance.row_buffer import RowBuffer

WARM_UP = 8  # steps; the first batch is also looked at for the data flow
TRIM = 0.1  # of the groups of four, at either end

Clock = Callable[[], float]


class Cost(NamedTuple):
    """Of watching one step, as a share of a step: all of it, its standard error, the folds in it; and of closing."""

    overhead: float
    error: float
    folds: float
    closing: float


class Net(LightningModule):
    """A network that learns one batch."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Return the loss."""
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam."""
        return torch.optim.Adam(self.parameters())


def is_watched(step: int) -> bool:
    """Return whether step number ``step`` is watched: 1 0 0 1, again and again."""
    return step % 4 in (0, 3)


class Half(SaturationMonitor):
    """The monitor, watching two of every four steps."""

    def _watch(self, trainer: Trainer, pl_module: LightningModule, stage: str, batch: Any) -> None:
        if is_watched(trainer.global_step):
            super()._watch(trainer, pl_module, stage, batch)


class HalfDelve(Callback):
    """Delve's tracker, recording two of every four steps."""

    def __init__(self, method: str) -> None:
        self.method = method
        self.tracker: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put its hooks onto the model."""
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # invalid escape sequences in its source
            from delve import SaturationTracker

            folder = tempfile.mkdtemp()
            self.tracker = SaturationTracker(folder, "csv", pl_module.net, conv_method=self.method, device="cpu")

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Record or not."""
        self.tracker.record = is_watched(trainer.global_step)


class Watch:
    """When each step began and ended, as seen from before and behind all other callbacks, and how long folds took."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.steps: list[float] = []
        self.folds: list[float] = []
        self.closing = math.nan

    def first(self) -> Callback:
        """Return the callback that begins to count."""

        class First(Callback):
            def on_train_batch_start(inner, *_: Any) -> None:  # noqa: N805
                self.folds.append(0.0)
                self.begin = self.now()

            def on_train_epoch_end(inner, *_: Any) -> None:  # noqa: N805
                self.begin = self.now()

        return First()

    def last(self) -> Callback:
        """Return the callback that ends it."""

        class Last(Callback):
            def on_train_batch_end(inner, *_: Any) -> None:  # noqa: N805
                self.steps.append(self.now() - self.begin)

            def on_train_epoch_end(inner, *_: Any) -> None:  # noqa: N805
                self.closing = self.now() - self.begin

        return Last()

    def now(self) -> float:
        """Return the time, when the device has done its work."""
        wait()
        return self.clock()

    @contextlib.contextmanager
    def timing_folds(self) -> Iterator[None]:
        """Time what hands rows over to the covariance."""
        fold = RowBuffer._update

        def timed(buffer: RowBuffer, rows: torch.Tensor, weight: int) -> None:
            begin = self.now()
            fold(buffer, rows, weight)
            if len(self.folds) > len(self.steps):  # not while a window closes
                self.folds[-1] += self.now() - begin

        RowBuffer._update = timed  # type: ignore[method-assign]
        try:
            yield
        finally:
            RowBuffer._update = fold  # type: ignore[method-assign]

    def cost(self) -> Cost:
        """Return what the steps say."""
        plain = [step - fold for step, fold in zip(self.steps, self.folds, strict=True)]
        groups = [plain[i : i + 4] for i in range(WARM_UP, len(plain) - 3, 4)]
        differences = [(one + four - two - three) / 2 for one, two, three, four in groups]
        step = trimmed([(two + three) / 2 for _, two, three, _ in groups])[0]
        more, error = trimmed(differences)
        watched = [fold for number, fold in enumerate(self.folds) if number >= WARM_UP and is_watched(number)]
        folds = statistics.fmean(watched)
        return Cost((more + folds) / step, error / step, folds / step, self.closing / step)


def trimmed(values: list[float]) -> tuple[float, float]:
    """Return the mean without the ``TRIM`` smallest and largest values, and its standard error.

    Source: Wilcox, *Introduction to robust estimation and hypothesis testing*, 2012, section 3.3 (winsorised variance).
    """
    cut = int(TRIM * len(values))
    ordered = sorted(values)
    kept = ordered[cut : len(values) - cut]
    winsorised = [kept[0]] * cut + kept + [kept[-1]] * cut
    return statistics.fmean(kept), statistics.stdev(winsorised) / (1 - 2 * TRIM) / math.sqrt(len(values))


def variants(images: bool) -> dict[str, Callable[[], Callback]]:
    """Return the callbacks to compare, by name."""
    found: dict[str, Callable[[], Callback]] = {
        "mean (default)": lambda: Half(),
        "positions + auto": lambda: Half(pooling="positions"),
        "positions + all": lambda: Half(pooling="positions", max_samples=None),
    }
    if importable("delve"):
        # Of tokens delve takes the last one, whatever the method for images; it has no rows of positions for them.
        found["delve, mean" if images else "delve, last token"] = lambda: HalfDelve("mean")
        if images:
            found["delve, positions"] = lambda: HalfDelve("channelwise")
    return found


def importable(name: str) -> bool:
    """Return whether the package ``name`` is there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            __import__(name)
        except ImportError:
            return False
    return True


def measure(name: str, callback: Callback, *, steps: int, clock: Clock) -> Cost:
    """Return what ``callback`` costs in a fit of the network called ``name``."""
    build, make_batch = NETWORKS[name]
    torch.manual_seed(1)
    batch, watch = make_batch(), Watch(clock)
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    with warnings.catch_warnings(), watch.timing_folds():
        warnings.simplefilter("ignore")  # few workers, few samples
        trainer = Trainer(
            max_epochs=1,
            accelerator="auto",
            devices=1,
            callbacks=[watch.first(), callback, watch.last()],
            **dict.fromkeys(quiet, False),
        )
        trainer.fit(Net(build()), DataLoader([batch] * (WARM_UP + steps), batch_size=None))  # type: ignore[arg-type]
    return watch.cost()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=320, help="half of them watched (default: %(default)s)")
    parser.add_argument("--only", nargs="*", default=["VGG", "transformer"], help="networks whose names start so")
    parser.add_argument("--variant", default="", help="variants whose names start so")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: processor seconds, one thread")
    options = parser.parse_args()
    if options.clock == "cpu":
        torch.set_num_threads(1)
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    rows = []
    for name, (_, make_batch) in NETWORKS.items():
        if not name.startswith(tuple(options.only)):
            continue
        for variant, make in variants(make_batch()[0].ndim == 4).items():
            if variant.startswith(options.variant):
                cost = measure(name, make(), steps=options.steps, clock=clock)
                ratio = f"{1 + cost.overhead:.3f} ± {cost.error:.3f}"
                closing = "" if variant.startswith("delve") else f"{cost.closing:.1f} steps"
                rows.append((name, variant, ratio, f"{cost.folds:.3f}", closing))
                print(*rows[-1], sep="; ", flush=True)
    print(table(rows, ("network", "variant", "step, to one not watched", "of it folding", "closing a window")))
    print(machine("lightning"))


if __name__ == "__main__":
    main()
