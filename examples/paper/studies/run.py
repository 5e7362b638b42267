"""Answer one study, and leave a record of its numbers in results/studies.

    python examples/paper/studies/run.py --list                     the studies, cheapest first
    python examples/paper/studies/run.py toy

A study that was killed goes on where it was: finished parts are kept, networks that the plan trained are used.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # examples/, where `common` and `paper` are

from common import quiet

from paper.run import arguments, placed
from paper.studies.bench import Bench, Study
from paper.studies.plan import studies
from paper.training import Places, alone


def find(name: str) -> Study:
    """Return the study called ``name``; ValueError where there is none."""
    by_name = {study.name: study for study in studies()}
    if name not in by_name:
        raise ValueError(f"Expected the name of a study (--list shows them), got {name!r}.")
    return by_name[name]


def main() -> int:
    parser = arguments(__doc__ or "")
    parser.add_argument("name", nargs="?", help="a study")
    parser.add_argument("--list", action="store_true", help="print the names of all studies, cheapest first")
    options = parser.parse_args()
    if options.list:
        print("\n".join(f"{study.seconds / 60:6.0f} min  {study.name}" for study in studies()))
        return 0
    if not options.name:
        parser.error("expected the name of a study, or --list")
    options = placed(options)
    quiet()
    places = Places(options.data, options.cache, options.results)
    try:
        study = find(options.name)
        with alone(places.of(f"{study.name}.lock", "locks")) as free:
            if not free:
                print(f"{study.name}: another process is at it", file=sys.stderr)
                return 3
            record = Bench(study, places, scale=options.scale).answer()
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{study.name}: {len(record['parts'])} parts, {sum(record['seconds_of'].values()):.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
