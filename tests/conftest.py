"""Shape checks for the pure functions, and quiet settings that every test shares."""

import base64
import importlib.metadata
import inspect
import os
import sys
from functools import cache
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side, and their tensors are small

import jaxtyping
import pytest
from hypothesis import settings
from jaxtyping import install_import_hook
from matplotlib.figure import Figure

import tests.typecheck  # noqa: F401  (the hook finds it by name, but does not import it)

FUNCTIONS = (
    "capture.pooling",
    "covariance.eigenvalues",
    "covariance.moments",
    "covariance.sketch",
    "covariance.sketch_bounds",
    "covariance.spectrum",
    "covariance.thinning",
    "dimension.copies",
    "dimension.neighbours",
    "dimension.two_nn",
    "dimension.two_nn_law",
    "matching.lasso",
    "matching.signs",
    "matching.units",
    "operators.circular",
    "operators.convolution_geometry",
    "operators.density",
    "operators.histogram",
    "operators.krylov",
    "operators.layer_operator",
    "operators.linear_map",
    "similarity.cca",
    "similarity.dft",
    "similarity.kernel_alignment",
    "similarity.pairs",
)
install_import_hook([f"lightning_saturation.{name}" for name in FUNCTIONS], "tests.typecheck.typecheck")

# Every Trainer reads what all installed packages offer, for ten milliseconds, and there are two thousand Trainers here.
importlib.metadata.entry_points = cache(importlib.metadata.entry_points)

# The same examples in every run: a search for new ones is for a developer's machine (`--hypothesis-profile=default`).
settings.register_profile("same", derandomize=True)
settings.load_profile("same")


FUNCTIONAL = {name.split(".")[0] for name in FUNCTIONS}


@pytest.fixture(autouse=True)
def _shapes_are_checked_by_the_tests_of_functions(request):
    """Whole trainings would check the same few shapes a hundred thousand times, for a tenth of their time."""
    folder = request.path.relative_to(Path(__file__).parent).parts[0]
    jaxtyping.config.update("jaxtyping_disable", folder not in FUNCTIONAL)


@pytest.fixture(autouse=True)
def _nothing_compiled_by_others():
    """What one test compiles would change what the next ones in this process look at."""
    yield
    compat = sys.modules.get("lightning_saturation.capture.compat")
    if compat is not None and compat.may_run_compiled(compat.nn.Module()):
        compat.torch.compiler.reset()
        compat.HISTORY["compiled"] = False


PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture
def small_pictures(monkeypatch):
    """Pictures of one pixel, for tests that look at none: figures are made, but not rendered."""

    def savefig(self, where, **options):
        Path(where).write_bytes(PIXEL) if isinstance(where, str | Path) else where.write(PIXEL)

    monkeypatch.setattr(Figure, "savefig", savefig)


@pytest.fixture
def unchecked_pooling(monkeypatch):
    """Pooling without shape checks: they would be compiled too, older compilers refuse them, and users run none."""
    module = sys.modules["lightning_saturation.capture.rows"]
    for name in ("pool", "positions_view"):
        monkeypatch.setattr(module, name, inspect.unwrap(getattr(module, name)))
