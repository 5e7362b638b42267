"""Promise 1: training with a callback is training without it, batch for batch, weight for weight, draw for draw."""

from __future__ import annotations

from functools import cache

import pytest

from tests.contract.callbacks import CALLBACKS, WATCHING
from tests.contract.loaders import FEEDS
from tests.contract.runs import Outcome, train
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
