"""Sweep architectures: average saturation against test accuracy (Shenk et al., figure 9).

    python examples/sweep/train.py --local                   the grid of sweep.yaml, without any server
    python examples/sweep/train.py --model vgg13 --width 0.5    a single trial
    wandb sweep examples/sweep/sweep.yaml                    then `wandb agent ...`: a server hands out the trials

Whichever way, a finished trial leaves one file under --out, and scatter.png and ranking.md there show all that have
finished with the same data and training. The test images steer nothing but the early termination of a W&B sweep.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # examples/, where `common` is

import results
import torch
from common import NETWORKS, Classifier, Images, ProgressBar, images, network, quiet, wandb_logger
from lightning import Trainer, seed_everything
from lightning.pytorch.loggers import Logger
from local import cores, in_processes
from picture import scatter
from settings import Settings, grid, product

from lightning_saturation import SaturationMonitor


def train(settings: Settings, *, logger: Logger | None = None, progress: bool = False) -> results.Result:
    """Return what one architecture came to: accuracy on the test images, saturation, diagnosis."""
    seed_everything(settings.seed, verbose=False)
    data = _images(settings)
    model = network(settings.model, data.shape, len(data.classes), width=settings.width)
    classifier = Classifier(model, len(data.classes), learning_rate=settings.learning_rate, augment=settings.augment)
    monitor = SaturationMonitor(stages=("train",))
    trainer = Trainer(
        max_epochs=settings.epochs,
        callbacks=[monitor, *([ProgressBar()] if progress else [])],
        logger=logger or False,
        enable_checkpointing=False,
        enable_progress_bar=progress,
        enable_model_summary=False,
        log_every_n_steps=10,
    )
    start = time.perf_counter()
    trainer.fit(classifier, data.train_loader(settings.batch_size), data.test_loader())
    report = monitor.reports[-1]
    diagnosis = report.diagnose(history=monitor.reports)
    return {
        "test_accuracy": float(trainer.callback_metrics["val/accuracy"]),
        "average": _plain(report.average),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "seconds": round(time.perf_counter() - start, 2),
        "findings": [{"kind": finding.kind, "layers": list(finding.layers)} for finding in diagnosis.findings],
        "diagnosis": str(diagnosis),
        "layers": {name: _plain(value) for name, value in report.saturation.items()},
        "average_by_epoch": [_plain(window.average) for window in monitor.reports],
    }


def finish(settings: Settings, out: Path) -> results.Result:
    """Run one trial without W&B and store its result; what a worker process does."""
    quiet()
    result = train(settings)
    results.save(out, settings, result)
    return result


def trial(settings: Settings, out: Path, *, mode: str) -> None:
    """Run one trial into a W&B run; under an agent the sweep's configuration takes the place of ours."""
    import wandb

    quiet()
    logger = wandb_logger("saturation-sweep", out, mode=mode, **asdict(settings))
    run = logger.experiment
    settings = Settings.of({key: run.config[key] for key in asdict(settings)})
    results.save(out, settings, train(settings, logger=logger, progress=sys.stdout.isatty()))
    found, title = results.comparable(out, settings), _title(settings)
    logger.log_image("sweep/scatter", [scatter(found, title)])
    rows = results.ranked(found)
    logger.log_table("sweep/ranking", columns=list(rows[0]), data=[list(row.values()) for row in rows])
    folder = Path(run.dir).parent
    wandb.finish()
    _show(out, found, title)
    if mode == "offline":
        print(f"W&B run:  {folder}   (wandb sync {folder})")


def sweep(trials: list[Settings], out: Path, *, workers: int) -> int:
    """Run the trials that have not finished yet in parallel, show all, and return how many failed."""
    from tqdm import tqdm

    left = [settings for settings in trials if results.find(out, settings) is None]
    if done := len(trials) - len(left):
        print(f"{done} of {len(trials)} trials have finished before and are not run again.")
    failed = 0
    # the dearest first, so that no worker starts on one when the others have nothing left to do
    left.sort(key=lambda settings: (settings.width, settings.model), reverse=True)
    with tqdm(total=len(trials), initial=done, unit="trial", disable=None) as bar:
        for settings, outcome in in_processes(partial(finish, out=out), left, workers=min(workers, len(left) or 1)):
            if isinstance(outcome, Exception):
                failed += 1
                bar.write(f"{settings.model} width {settings.width:g} failed: {type(outcome).__name__}: {outcome}")
            bar.update()
    finished = [result for settings in trials if (result := results.find(out, settings))]
    if finished:
        _show(out, finished, _title(trials[0]))
    return failed


def main() -> int:
    options = _arguments()
    known = {key: value for key, value in vars(options).items() if key in asdict(Settings())}
    given = {key: value if isinstance(value, list) else [value] for key, value in known.items()}
    out = options.out.resolve()
    try:
        trials = grid(options.sweep, given) if options.local else product(given)
        if len(trials) > 1 and not options.local:
            raise ValueError(f"Expected one model and one width without --local, got {given}.")
        _check(trials)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if not options.local:
        trial(trials[0], out, mode=options.wandb)
        return 0
    try:
        return min(1, sweep(trials, out, workers=options.workers or cores()))
    except KeyboardInterrupt:
        print("\nStopped. The same command runs what is left.", file=sys.stderr)
        return 130


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    one = parser.add_argument_group("trial (with --local these win over the YAML)", argument_default=argparse.SUPPRESS)
    one.add_argument("--model", nargs="+", help=f"of {', '.join(NETWORKS)}; several with --local")
    one.add_argument("--width", nargs="+", type=float, help="factor on every layer's features; several with --local")
    one.add_argument("--epochs", type=int)
    one.add_argument("--batch_size", type=int)
    one.add_argument("--learning_rate", type=float)
    one.add_argument("--data", help="folder or zip of class/image files; without it scikit-learn's digits")
    one.add_argument("--limit", type=int, help="use so many images in all")
    one.add_argument("--size", type=int, help="side of the images in pixels")
    one.add_argument("--augment", action="store_true", help="random crops and flips, for photographs")
    one.add_argument("--seed", type=int)
    parser.add_argument("--local", action="store_true", help="run the whole grid here, without a server")
    parser.add_argument(
        "--sweep", type=Path, default=Path(__file__).with_name("sweep.yaml"), help="the grid's YAML file"
    )
    parser.add_argument("--workers", type=int, help="trials at a time (default: one per core)")
    parser.add_argument("--out", type=Path, default=Path("results/sweep"), help="where results go")
    mode = "online" if "WANDB_SWEEP_ID" in os.environ else "offline"
    parser.add_argument("--wandb", choices=("online", "offline", "disabled"), default=mode)
    return parser.parse_args()


def _check(trials: list[Settings]) -> None:
    """Raise now what every trial would raise later: data that are not there, a network that does not exist."""
    data = _images(trials[0])
    for settings in trials:
        if settings.epochs < 1 or settings.batch_size < 1 or not settings.learning_rate > 0:
            raise ValueError(f"Expected epochs, batch_size and learning_rate above 0, got {settings}.")
        with torch.device("meta"):
            network(settings.model, data.shape, len(data.classes), width=settings.width)


def _images(settings: Settings) -> Images:
    return images(settings.data, limit=settings.limit, size=settings.size)


def _title(settings: Settings) -> str:
    source = "scikit-learn's digits" if settings.data is None else Path(settings.data).stem
    return f"{source}: {_images(settings)}; {settings.epochs} epochs"


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value


def _show(out: Path, found: list[results.Result], title: str) -> None:
    picture, table = results.publish(out, found, title)
    print(f"\n{table.read_text()}\nPicture:  {picture}\nTable:    {table}")


if __name__ == "__main__":
    sys.exit(main())
