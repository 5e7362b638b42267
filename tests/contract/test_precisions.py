"""Promise 7: a run in any precision comes to its end, with numbers."""

from __future__ import annotations

import math

import pytest
import torch

from tests.contract.callbacks import CALLBACKS, history
from tests.contract.runs import Learner, outcome, seed
from tests.tiny import batches, quiet, trainer

pytestmark = quiet


def ran(*callbacks, precision):
    seed()
    model = Learner()
    done = trainer(*callbacks, precision=precision, max_epochs=3)
    done.fit(model, batches(shuffle=True), batches(16))
    return outcome(model, done)


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "bf16-mixed"])
@pytest.mark.parametrize("name", CALLBACKS)
def test_training_ends_with_numbers(name, precision):
    callbacks = CALLBACKS[name]()
    result = ran(*callbacks, precision=precision)
    assert result.steps == (3, 12)
    entries = history(callbacks)
    assert entries
    kinds = {entry.what for entry in entries}
    for kind in kinds:
        numbers = [value for entry in entries if entry.what == kind for value in entry.numbers.values()]
        assert numbers
        assert sum(map(math.isfinite, numbers)) > len(numbers) / 2


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "bf16-mixed"])
def test_weights_keep_their_type(precision):
    kinds = {ran(*make(), precision=precision).weights[0].dtype for make in CALLBACKS.values()}
    assert kinds == {{"64-true": torch.float64, "bf16-true": torch.bfloat16, "bf16-mixed": torch.float32}[precision]}
