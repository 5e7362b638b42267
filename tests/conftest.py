"""Shape checks for the functional room, and quiet settings that every test shares."""

import os

os.environ.setdefault("MPLBACKEND", "Agg")

from jaxtyping import install_import_hook

install_import_hook("lightning_saturation.functional", "beartype.beartype")
