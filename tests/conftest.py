"""Shape checks for the functional room, and quiet settings that every test shares."""

import os

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side, and their tensors are small

from hypothesis import settings
from jaxtyping import install_import_hook

import tests.typecheck  # noqa: F401  (the hook finds it by name, but does not import it)

install_import_hook("lightning_saturation.functional", "tests.typecheck.typecheck")

# The same examples in every run: a search for new ones is for a developer's machine (`--hypothesis-profile=default`).
settings.register_profile("same", derandomize=True)
settings.load_profile("same")
