"""One version, whichever way one asks for it."""

import importlib.metadata
import re

import lightning_saturation


def test_the_package_and_what_pip_installed_name_the_same_version():
    assert importlib.metadata.version("lightning-saturation") == lightning_saturation.__version__


def test_the_changelog_begins_with_it(request):
    changelog = (request.config.rootpath / "CHANGELOG.md").read_text()
    newest = re.search(r"^## (\S+)", changelog, flags=re.MULTILINE)
    assert newest is not None
    assert newest[1] == lightning_saturation.__version__
