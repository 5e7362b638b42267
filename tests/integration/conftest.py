"""Where runs of examples/paper put what they make, at a scale of seconds."""

import pytest


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def places(cache, tmp_path, monkeypatch):
    pytest.importorskip("sklearn")
    from examples.paper.run import Places, quiet  # not for the tests that need no example

    quiet()
    monkeypatch.setattr("paper.measure.DELTAS", (0.9, 0.99))  # of four that are all treated alike
    return Places("digits", cache, tmp_path / "results")
