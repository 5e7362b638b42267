from __future__ import annotations

import pytest

from tests.wandb_runs import read_runs


@pytest.fixture(autouse=True)
def _small(request):
    """Pictures of one pixel, but for the tests marked ``pictures``, which look at them."""
    if "pictures" not in request.keywords:
        request.getfixturevalue("small_pictures")


@pytest.fixture
def offline_runs(tmp_path, monkeypatch):
    """W&B offline in a folder of the test's own; calling the fixture ends W&B and returns the runs written."""
    wandb = pytest.importorskip("wandb")
    for variable in ("WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_CONSOLE", "off")

    def end():
        wandb.finish()
        # Finishing alone leaves the file incomplete now and then.
        wandb.teardown()

    def read():
        end()
        return read_runs(tmp_path)

    yield read
    end()
