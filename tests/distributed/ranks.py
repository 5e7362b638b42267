"""Run a function on several gloo processes and get its results, or its failures, back."""

from __future__ import annotations

import datetime
import multiprocessing
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist


class RanksFailedError(RuntimeError):
    """What went wrong on which rank: ``errors`` holds the last line of each failed rank's traceback."""

    def __init__(self, tracebacks: dict[int, str]) -> None:
        self.errors = {rank: text.strip().splitlines()[-1] for rank, text in tracebacks.items()}
        super().__init__("\n\n".join(f"On rank {rank}:\n{text}" for rank, text in tracebacks.items()))


def on_ranks(
    world: int, job: Callable[..., Any], *args: Any, timeout: float = 12.0, backend: str | None = "gloo"
) -> list[Any]:
    """Return what ``job(rank, *args)`` returned on each of ``world`` forked processes, by rank.

    The processes form one process group (with ``backend=None`` they form none: the job starts its own) whose
    collectives fail after ``timeout`` seconds, so that a deadlock is a failure. Raises :class:`RanksFailedError` where
    any rank raised or died. ``job`` may be a closure; its result must pickle.
    """
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            context.Process(target=_work, args=(rank, world, Path(folder), job, args, timeout, backend), daemon=False)
            for rank in range(world)
        ]
        with warnings.catch_warnings():
            # Newer Pythons warn of forking with threads around; the children run on one thread and touch no other.
            warnings.simplefilter("ignore", DeprecationWarning)
            for process in processes:
                process.start()
        _join(processes, patience=3 * timeout)
        failures = {rank: _failure(rank, Path(folder), process) for rank, process in enumerate(processes)}
        if any(failures.values()):
            raise RanksFailedError({rank: text for rank, text in failures.items() if text})
        return [torch.load(Path(folder, f"{rank}.pt"), weights_only=False) for rank in range(world)]


def error_on_each(world: int, job: Callable[..., Any], *args: Any, **options: Any) -> list[str]:
    """Return ``"TypeOfError: message"`` of each rank, for a ``job`` that must fail on all of them."""

    def failing(rank: int) -> str:
        try:
            job(rank, *args)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        raise AssertionError("this rank met no error")

    return on_ranks(world, failing, **options)


def _work(
    rank: int, world: int, folder: Path, job: Callable[..., Any], args: Any, timeout: float, backend: str | None
) -> None:
    torch.set_num_threads(1)  # the parent's thread pool does not survive a fork
    try:
        if backend is not None:
            limit = datetime.timedelta(seconds=timeout)
            meet = f"file://{folder}/meet"
            dist.init_process_group(backend, init_method=meet, rank=rank, world_size=world, timeout=limit)
        result = job(rank, *args)
        torch.save(result, folder / f"{rank}.pt")
        if backend is not None:
            dist.barrier()  # no rank leaves while another still talks to it
            dist.destroy_process_group()
    except BaseException:
        (folder / f"{rank}.error").write_text(traceback.format_exc())
        raise SystemExit(1) from None


def _join(processes: list[BaseProcess], *, patience: float) -> None:
    end = time.monotonic() + patience
    for process in processes:
        process.join(max(0.0, end - time.monotonic()))
    for process in processes:
        if process.is_alive():
            process.kill()
            process.join()


def _failure(rank: int, folder: Path, process: BaseProcess) -> str:
    error = folder / f"{rank}.error"
    if error.exists():
        return error.read_text()
    return "" if process.exitcode == 0 else f"Process ended with exit code {process.exitcode} (negative: a signal)."
