"""Running a model over batches, whatever happens in between."""

import pytest
import torch
from torch import nn

from lightning_saturation.capture.evaluation import Batches, run


def test_every_batch_runs_in_evaluation_mode_without_gradients_and_modes_come_back():
    first, second = nn.Sequential(nn.Linear(3, 2), nn.Dropout()), nn.Linear(3, 2)
    first[1].eval()
    with Batches(iter([torch.ones(1, 3)] * 4), 3).over(first, second) as each:
        seen = [(run(first, batch, one), run(second, batch, two), first.training) for batch, (one, two) in each]
    assert len(seen) == 3
    assert not any(training or a.requires_grad or b.requires_grad for a, b, training in seen)
    assert (first.training, first[0].training, first[1].training, second.training) == (True, True, False, True)
    assert torch.is_grad_enabled()


def test_modes_come_back_when_the_loop_ends_early_or_with_an_error():
    model = nn.Linear(3, 2)
    with Batches([torch.ones(1, 3)] * 2).over(model) as each:
        next(each)
    assert model.training
    with pytest.raises(RuntimeError, match="shapes") as kept, Batches([torch.ones(1, 4)]).over(model) as each:
        [run(model, batch, home) for batch, (home,) in each]
    assert model.training, kept
    assert torch.is_grad_enabled()


def test_the_bar_has_its_name_and_the_number_of_batches(capsys):
    with Batches([1, 2, 3], 2, bar="counting").over(nn.Linear(3, 2)) as each:
        assert [batch for batch, _ in each] == [1, 2]
    shown = capsys.readouterr().err
    assert "counting: 100%" in shown
    assert "2/2" in shown
    with Batches([1]).over(nn.Linear(3, 2)) as each:
        list(each)
    assert not capsys.readouterr().err
