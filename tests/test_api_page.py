"""The API page lists what is public: all of it, and nothing else."""

import importlib
import re

import lightning_saturation
from lightning_saturation import functional


def _object(path):
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def test_every_public_name_is_on_the_api_page_once(request):
    page = (request.config.rootpath / "docs" / "api.md").read_text()
    listed = [_object(path) for path in re.findall(r"^::: (\S+)$", page, flags=re.MULTILINE)]
    public = [getattr(face, name) for face in (lightning_saturation, functional) for name in face.__all__]
    assert sorted(map(repr, listed)) == sorted(map(repr, public))
