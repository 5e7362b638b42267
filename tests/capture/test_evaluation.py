"""Running a model over batches, whatever happens in between."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_saturation import compare_representations, measure_dimension, measure_saturation, measure_spectrum
from lightning_saturation.capture.evaluation import Batches


def compare(model, batches):
    return compare_representations(model, nn.Linear(3, 2), batches, method="cka", progress=False)


def test_every_batch_runs_in_evaluation_mode_without_gradients_and_modes_come_back():
    first, second = nn.Sequential(nn.Linear(3, 2), nn.Dropout()), nn.Linear(3, 2)
    first[1].eval()
    data = Batches(iter([torch.ones(1, 3)] * 4), 3)
    with data.over(first, second) as each:
        seen = [
            (data.run(first, batch, one), data.run(second, batch, two), first.training) for batch, (one, two) in each
        ]
    assert len(seen) == 3
    assert not any(training or a.requires_grad or b.requires_grad for a, b, training in seen)
    assert (first.training, first[0].training, first[1].training, second.training) == (True, True, False, True)
    assert torch.is_grad_enabled()


def test_modes_come_back_when_the_loop_ends_early_or_with_an_error():
    model = nn.Linear(3, 2)
    with Batches([torch.ones(1, 3)] * 2).over(model) as each:
        next(each)
    assert model.training
    data = Batches([torch.ones(1, 4)])
    with pytest.raises(RuntimeError, match="shapes") as kept, data.over(model) as each:
        [data.run(model, batch, home) for batch, (home,) in each]
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


NO_MODEL = r"Expected `model` to be a torch\.nn\.Module, got "
NO_DATA = "Expected `batches` to be a loader or a list of batches, got None"
NO_INPUT = r"Expected a batch whose first element is the input, got \[\]"


@pytest.mark.parametrize("measure", [measure_saturation, measure_dimension, measure_spectrum, compare])
def test_what_is_no_model_is_told(measure):
    for other, told in (([torch.ones(8, 3)], "a list"), (nn.Linear, "the class Linear"), ("resnet18", "a str")):
        with pytest.raises(TypeError, match=NO_MODEL + told):
            measure(other, [torch.ones(8, 3)])


@pytest.mark.parametrize("measure", [measure_saturation, measure_dimension, compare])
def test_what_is_no_data_is_told(measure):
    with pytest.raises(TypeError, match=NO_DATA):
        measure(nn.Linear(3, 2), None)
    with pytest.raises(ValueError, match=NO_INPUT):
        measure(nn.Linear(3, 2), [[]])
    with pytest.raises(ValueError, match=NO_INPUT):
        measure_spectrum(nn.Linear(3, 2), [])


def test_a_comparison_starts_no_workers_to_learn_whether_it_can_read_twice():
    class Loader(DataLoader):
        begun = 0

        def __iter__(self):
            Loader.begun += 1
            return super().__iter__()

    model = nn.Linear(3, 2)
    compare(model, Loader(TensorDataset(torch.randn(16, 3)), batch_size=8))
    assert Loader.begun == 1
