"""Promise 1: training with a callback is training without it, batch for batch, weight for weight, draw for draw."""

from __future__ import annotations

from functools import cache

import pytest

from tests.contract.callbacks import CALLBACKS, WATCHING
from tests.contract.loaders import FEEDS
from tests.contract.runs import Outcome, train
from tests.integration.programs import ROOT, program
from tests.tiny import quiet

pytestmark = [
    *quiet,
    # That a stream has no length, or one that is not kept, is Lightning's and PyTorch's to say and wanted here.
    pytest.mark.filterwarnings("ignore:.*IterableDataset"),
]


@cache
def alone(feed: str) -> Outcome:
    return train(feed=FEEDS[feed]())


@pytest.mark.parametrize("feed", FEEDS)
@pytest.mark.parametrize("name", WATCHING)
def test_training_is_bitwise_the_same(name, feed):
    watched = train(*WATCHING[name](), feed=FEEDS[feed]())
    assert alone(feed).differs(watched) == []


@pytest.mark.parametrize("feed", FEEDS)
def test_freezing_changes_weights_and_nothing_else(feed):
    assert alone(feed).differs(train(*CALLBACKS["freezing"](), feed=FEEDS[feed]()), weights=False) == []


@pytest.mark.parametrize("feed", FEEDS)
def test_the_comparison_is_one(feed):
    """Two runs without callbacks are the same, so that every difference above is the callback's; and there is data."""
    assert alone(feed).differs(train(feed=FEEDS[feed]())) == []
    assert [stage for stage, _ in alone(feed).fed].count("train") >= 6


_PYTHONS_GENERATOR = """
import logging, warnings
warnings.simplefilter("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
from tests.contract.callbacks import WATCHING
from tests.contract.loaders import pythons_generator_in_data as feed
from tests.contract.runs import CHECKED, train
assert not CHECKED
alone = train(feed=feed())
for name, make in WATCHING.items():
    print(f"{name}: {alone.differs(train(*make(), feed=feed()))}")
"""


def test_pythons_own_generator_is_left_alone():
    """In a process of its own: type checks in tests draw from that generator."""
    with program(["-c", _PYTHONS_GENERATOR], folder=ROOT) as (process, _):
        said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert [line for line in said.splitlines() if line.endswith("]")] == [f"{name}: []" for name in WATCHING]
