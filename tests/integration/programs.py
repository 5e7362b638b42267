"""Programs as a user starts them, the real ``wandb.agent`` among them, in processes that never outlive the test."""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

PATIENCE = 280.0
"""Seconds for a program that takes a tenth of it on a free core: a busy machine is no failure."""

TOKEN = "LIGHTNING_SATURATION_TEST"

_AGENT = """
import sys, wandb, yaml
from wandb import wandb_agent
wandb_agent.Agent.POLL_INTERVAL = 0.2  # seconds between heartbeats, instead of 5
with open(sys.argv[1]) as file:
    sweep = wandb.sweep(yaml.safe_load(file), entity=sys.argv[2], project=sys.argv[3])
wandb.agent(sweep, entity=sys.argv[2], project=sys.argv[3])
"""


@contextmanager
def program(command: list[str], *, folder: Path, **variables: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start ``python command`` in ``folder``; hand over the process and the token that all its descendants carry.

    Leaving the context, however that comes about, kills every process that carries the token: W&B's core starts a
    session of its own and ignores SIGTERM, so neither the process group nor a polite signal would reach it.
    """
    token = uuid.uuid4().hex
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("WANDB_")},
        TOKEN: token,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(ROOT),
        "MPLBACKEND": "Agg",
        "OMP_NUM_THREADS": "1",
        **{f"WANDB_{kind}_DIR": str(folder / kind.lower()) for kind in ("DATA", "CACHE", "CONFIG")},
        **variables,
    }
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen([sys.executable, *command], cwd=folder, env=environment, **pipes)
    try:
        yield process, token
    finally:
        process.kill()
        kill(token)
        process.communicate(timeout=30)  # whoever survives holds the pipe open: a failure rather than a hang


def run_here(path: Path, *arguments: str, folder: Path, monkeypatch) -> int:
    """Run the program ``path`` as ``python path arguments`` in ``folder`` would, and return its status.

    It runs in this process, which has imported what a process of its own would import for seconds.
    """
    monkeypatch.setattr(sys, "argv", [str(path), *arguments])
    monkeypatch.syspath_prepend(path.parent)
    monkeypatch.chdir(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        try:
            runpy.run_path(str(path), run_name="__main__")
        except SystemExit as end:
            return int(end.code or 0)
    return 0


def agent(sweep: Path, *, server: str, entity: str, project: str, folder: Path):
    """Start the sweep of a YAML file on ``server``, and its agent, as a ``program``."""
    variables = {"WANDB_BASE_URL": server, "WANDB_API_KEY": "0" * 40, "WANDB_DIR": str(folder)}
    return program(["-c", _AGENT, str(sweep), entity, project], folder=folder, WANDB_SILENT="true", **variables)


def alive(token: str) -> dict[int, str]:
    """Return the processes that carry ``token`` in their environment, by id, with their command lines."""
    mark, found = f"{TOKEN}={token}".encode(), {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile, or belongs to another user
            if mark in (folder / "environ").read_bytes():
                found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def running(token: str, *parts: str) -> bool:
    """Return whether for each of ``parts`` there is a process that carries ``token`` and has it in its command line."""
    commands = alive(token).values()
    return all(any(part in command for command in commands) for part in parts)


def kill(token: str, *, patience: float = 10.0) -> None:
    """Kill until no process carries ``token``: one that is being born may have been missed by the first look."""
    end = time.monotonic() + patience
    while (left := alive(token)) and time.monotonic() < end:
        for number in left:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        time.sleep(0.05)


def wait_until(condition: Callable[[], object], *, patience: float = PATIENCE) -> bool:
    """Return whether ``condition`` came true within ``patience`` seconds."""
    end = time.monotonic() + patience
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
