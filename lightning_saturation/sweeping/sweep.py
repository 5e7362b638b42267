"""Sweeping one's own model over a grid, in processes of this machine or for a W&B agent."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from tqdm.auto import tqdm  # comes with lightning

from lightning_saturation.arguments import check_count, check_folder
from lightning_saturation.drawing.replacing import replacing
from lightning_saturation.sweeping.grid import Config, Grid, configs, title_of, wandb_sweep
from lightning_saturation.sweeping.outcome import SweepOutcome
from lightning_saturation.sweeping.trial import Result, Setup, TrainerOptions, Trial, run


def sweep(
    trial: Trial | str | os.PathLike[str],
    grid: Grid,
    *,
    out: str | os.PathLike[str],
    metric: str,
    maximize: bool | None = None,
    trainer: TrainerOptions = None,
    workers: int = 1,
    seed: int = 0,
    progress: bool = True,
) -> SweepOutcome:
    """Return what each configuration of ``grid`` comes to: saturation, diagnosis and ``metric``, the best first.

    A finished trial leaves a file under ``out``: the same call after Ctrl-C, a crash or a power cut runs what is left.
    A trial that fails is named in the outcome, ends no other one, and is tried again by the next call. In the end
    ``ranking.csv``, ``ranking.txt`` and ``scatter.png`` are written there too, and at the start ``sweep.yaml``: with
    ``wandb sweep out/sweep.yaml`` and ``wandb agent`` the same program runs one trial at a time for a W&B server, on as
    many machines as there are.

    Args:
        trial: ``trial(config)`` returns a LightningModule and its data: a datamodule, a training loader, or a training
            and a validation loader. Or the path of a LightningCLI configuration, whose ``class_path`` s and Trainer
            are used; ``grid`` then names its keys, such as ``"model.init_args.width"``.
        grid: values by name, or a list of such grids; every combination is a trial (scikit-learn's ``ParameterGrid``).
        out: folder for results; one for each sweep.
        metric: what modules log and the ranking is by; its last value counts.
        maximize: whether more of it is better; None says yes but for a name with "loss" or "error" in it.
        trainer: arguments of each Trainer, or ``trainer(config)`` that returns them or a Trainer. A
            :class:`SaturationMonitor` of the training stage is added where there is none.
        workers: trials at a time, each in a process of its own; with 1 they run in this one.
        seed: of every trial, with ``lightning.seed_everything``.
        progress: whether to show a bar.

    Raises:
        ValueError: for a ``grid`` without trials, or arguments out of range.
        TypeError: for a ``trial`` or ``trainer`` that is neither of the two.
        ImportError: without scikit-learn and joblib (``pip install 'lightning-saturation[sweep]'``).
    """
    check_count("workers", workers)
    if not callable(trial) and not isinstance(trial, str | os.PathLike):
        raise TypeError(
            f"Expected `trial` to be a function or the path of a configuration, got {type(trial).__name__}."
        )
    if trainer is not None and not callable(trainer) and not isinstance(trainer, Mapping):
        kind = type(trainer).__name__  # a Trainer, as likely as not: it trains once
        raise TypeError(f"Expected `trainer` to be arguments, or a function that returns a new Trainer, got {kind}.")
    points = configs(grid)
    if not points:
        raise ValueError(f"Expected `grid` with at least one trial, got {grid!r}.")
    folder = Path(check_folder("out", out) or ".").resolve()
    up = not any(word in metric for word in ("loss", "error")) if maximize is None else bool(maximize)
    setup = Setup(trial, folder, metric, trainer, seed)
    if os.environ.get("WANDB_SWEEP_ID"):
        return _for_an_agent(setup, points, maximize=up)
    folder.mkdir(parents=True, exist_ok=True)
    content = wandb_sweep(grid, metric=metric, maximize=up)
    if content is not None:
        with replacing(folder / "sweep.yaml") as path:
            path.write_text(json.dumps(content, indent=2), encoding="utf-8")  # YAML is a superset of JSON
    left = [config for config in points if setup.finished(config) is None]
    failed = {}
    with tqdm(
        total=len(points), initial=len(points) - len(left), desc="sweep", unit="trial", disable=not progress
    ) as bar:
        for config, outcome in _outcomes(setup, left, workers):
            if isinstance(outcome, str):
                failed[title_of(config)] = outcome
                bar.write(f"{title_of(config)} failed: {outcome}")
            bar.update()
    return _outcome(setup, points, failed, maximize=up)


def _outcomes(setup: Setup, left: Sequence[Config], workers: int) -> Iterator[tuple[Config, Result | str]]:
    """Yield each configuration with its result, or with what went wrong, in the order in which they finish."""
    if workers == 1:
        yield from (_attempt(setup, config, None) for config in left)
        return
    from joblib import Parallel, delayed, parallel_config

    threads = max(1, (os.cpu_count() or 1) // workers)
    with parallel_config(backend="loky", inner_max_num_threads=threads):
        jobs = Parallel(n_jobs=workers, return_as="generator_unordered")
        attempt = delayed(partial(_attempt, setup))
        yield from jobs(attempt(config, os.getpid()) for config in left)


def _attempt(setup: Setup, config: Config, parent: int | None) -> tuple[Config, Result | str]:
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    try:
        return config, run(setup, config)
    except Exception as error:
        return config, f"{type(error).__name__}: {error}"


def _end_with(parent: int) -> None:
    """End this process where the one that started it has gone: nobody waits for its trial."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _for_an_agent(setup: Setup, points: Sequence[Config], *, maximize: bool) -> SweepOutcome:
    """Run the trial that a W&B agent hands out, into its run."""
    from lightning.pytorch.loggers import WandbLogger

    setup.out.mkdir(parents=True, exist_ok=True)
    logger = WandbLogger(save_dir=setup.out)
    names = list(dict.fromkeys(name for config in points for name in config))
    chosen = {name: logger.experiment.config[name] for name in names if name in logger.experiment.config}
    run(setup, chosen, logger=logger)
    return _outcome(setup, [*points, *([] if chosen in points else [chosen])], {}, maximize=maximize)


def _outcome(setup: Setup, points: Sequence[Config], failed: dict[str, str], *, maximize: bool) -> SweepOutcome:
    results = [result for config in points if (result := setup.finished(config)) is not None]
    ordered = sorted(results, key=lambda result: -result["value"] if maximize else result["value"])
    outcome = SweepOutcome(setup.metric, tuple(ordered), failed)
    if results:
        outcome.save(setup.out)
    return outcome
