"""Running a model over batches, whatever happens in between."""

import pytest
import torch
from torch import nn

from lightning_saturation.capture.evaluation import each_batch, run


def test_every_batch_runs_in_evaluation_mode_without_gradients_and_modes_come_back():
    first, second = nn.Sequential(nn.Linear(3, 2), nn.Dropout()), nn.Linear(3, 2)
    first[1].eval()
    with each_batch([first, second], iter([torch.ones(1, 3)] * 4), max_batches=3) as each:
        seen = [(run(first, batch, one), run(second, batch, two), first.training) for batch, (one, two) in each]
    assert len(seen) == 3
    assert not any(training or a.requires_grad or b.requires_grad for a, b, training in seen)
    assert (first.training, first[0].training, first[1].training, second.training) == (True, True, False, True)
    assert torch.is_grad_enabled()


def test_modes_come_back_when_the_loop_ends_early_or_with_an_error():
    model = nn.Linear(3, 2)
    with each_batch([model], [torch.ones(1, 3)] * 2) as each:
        next(each)
    assert model.training
    with pytest.raises(RuntimeError, match="shapes") as kept, each_batch([model], [torch.ones(1, 4)]) as each:
        [run(model, batch, home) for batch, (home,) in each]
    assert model.training, kept
    assert torch.is_grad_enabled()


def test_the_bar_has_its_name_and_the_number_of_batches(capsys):
    with each_batch([nn.Linear(3, 2)], [1, 2, 3], max_batches=2, bar="counting") as each:
        assert [batch for batch, _ in each] == [1, 2]
    shown = capsys.readouterr().err
    assert "counting: 100%" in shown
    assert "2/2" in shown
    with each_batch([nn.Linear(3, 2)], [1]) as each:
        list(each)
    assert not capsys.readouterr().err
