"""What can be asked for in a terminal: ``python -m lightning_saturation dashboard ENTITY/PROJECT``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lightning_saturation.dashboard import dashboard


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that ``arguments`` name and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m lightning_saturation", description="Saturation in a terminal.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("dashboard", help="build a W&B workspace that compares the runs of a project")
    command.add_argument("project", type=_project, metavar="ENTITY/PROJECT")
    command.add_argument("--metric", default="val/accuracy", help="what to set saturation against (val/accuracy)")
    command.add_argument("--parameter", action="append", default=[], help="of the runs to compare by; may be repeated")
    command.add_argument("--name", default="saturation", help="of the monitor (saturation)")
    command.add_argument("--stage", default="train", choices=("train", "val", "test"), help="to show (train)")
    command.add_argument("--spec", type=Path, help="write the specification to this JSON file and save nothing")
    options = parser.parse_args(arguments)
    entity, project = options.project
    names = {"name": options.name, "stage": options.stage}
    try:
        workspace = dashboard(entity, project, metric=options.metric, parameters=options.parameter, **names)
    except ImportError as error:
        parser.exit(2, f"error: {error}\n")
    if options.spec is not None:
        view = workspace._to_model()
        options.spec.write_text(view.model_dump_json(by_alias=True, exclude_none=True, indent=1), encoding="utf-8")
    else:
        workspace.save()
        print(workspace.url)  # W&B says so too, but not where it was told to be silent
    return 0


def _project(text: str) -> tuple[str, str]:
    entity, _, project = text.partition("/")
    if not entity or not project or "/" in project:
        raise argparse.ArgumentTypeError(f"expected ENTITY/PROJECT, got {text!r}")
    return entity, project


if __name__ == "__main__":
    sys.exit(main())
