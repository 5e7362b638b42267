"""What all metrics promise, tried on the smallest one: an error in between leaves them as they were."""

import pytest
import torch

from lightning_saturation.covariance.state_metric import StateMetric
from tests.distributed.ranks import on_ranks


class Total(StateMetric):
    """The sum of everything seen, kept in place; it may be told to fail."""

    total: torch.Tensor
    full_state_update = False
    failing = ""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.add_state("total", torch.zeros(()))

    def update(self, x):
        self.total.add_(x)
        self.skipped += 1

    def compute(self):
        with self._synced():
            if self.failing == "compute":
                raise ValueError("no value")
            return self.total.clone()

    def _reduce_states(self, incoming_state):
        if self.failing == "merge":
            raise ValueError("no merging")
        self.total = self.total + incoming_state["total"]
        self.skipped = self.skipped + incoming_state["skipped"]

    def _merge_ranks(self, group):
        self.total = self.total * 100
        if self.failing == "ranks":
            raise ValueError("no ranks")


class FromAll(Total):
    full_state_update = True


@pytest.mark.parametrize(
    ("kind", "on_step", "failing"),
    [
        (Total, False, "compute"),
        (Total, False, "merge"),
        (Total, True, "compute"),
        (FromAll, False, "compute"),
        (FromAll, True, "compute"),
    ],
)
def test_a_forward_that_fails_leaves_everything_as_it_was(kind, on_step, failing):
    metric = kind(dist_sync_on_step=on_step)
    metric.update(1.0)
    metric.failing = failing
    with pytest.raises(ValueError, match="no"):
        metric(2.0)
    metric.failing = ""
    assert (float(metric.compute()), int(metric.skipped), metric.update_count) == (1.0, 1, 1)
    assert float(metric(4.0)) == 4.0
    assert float(metric.compute()) == 5.0


@pytest.mark.parametrize("failing", ["ranks", "compute"])
def test_a_synchronisation_that_fails_leaves_the_ranks_own_state(failing):
    def job(rank):
        metric = Total()
        metric.update(1.0 + rank)
        metric.failing = failing
        with pytest.raises(ValueError, match="no"):
            metric.compute()
        own = float(metric.total), int(metric.skipped)
        metric.failing = ""
        with metric._synced():
            skipped = int(metric.skipped)
        return own, skipped, float(metric.compute())

    assert on_ranks(2, job) == [((1.0, 1), 2, 100.0), ((2.0, 1), 2, 200.0)]
