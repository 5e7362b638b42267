"""Many trials in worker processes of this machine, none of which outlives it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing.connection import Connection
from typing import TypeVar

import torch

Task = TypeVar("Task")
Outcome = TypeVar("Outcome")


def in_processes(
    run: Callable[[Task], Outcome], tasks: Sequence[Task], *, workers: int
) -> Iterator[tuple[Task, Outcome | Exception]]:
    """Yield each task with its outcome, or the exception it raised, in the order in which they finish.

    Leaving early, by an exception or Ctrl-C, ends the workers at once; so does the death of this process.
    """
    context = multiprocessing.get_context("spawn")
    listening, alive = context.Pipe(duplex=False)  # only this process holds `alive`: its end is ours
    threads = max(1, cores() // workers)
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_prepare, initargs=(listening, threads))
    try:
        futures = {pool.submit(run, task): task for task in tasks}
        for future in as_completed(futures):
            error = future.exception()
            if error is not None and not isinstance(error, Exception):
                raise error
            yield futures[future], error or future.result()
    finally:
        alive.close()
        pool.shutdown(wait=True, cancel_futures=True)


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _prepare(listening: Connection, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of the terminal; the first one decides
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with, args=(listening,), daemon=True).start()


def _end_with(listening: Connection) -> None:
    try:
        listening.recv()
    except EOFError:
        os._exit(1)
