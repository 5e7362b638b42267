"""Promise 6: a run that is killed anywhere and resumed remembers what an uninterrupted one does."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_saturation import FreezeTraining, SaturationStopping
from tests.contract.callbacks import CALLBACKS, dimension, history, same_numbers, similarity, spectrum
from tests.contract.runs import Learner, outcome, seed
from tests.tiny import batches, data, quiet, trainer

pytestmark = [
    *quiet,
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended"),
    # What saved the checkpoints is not there in the runs that load them. That of our own must not be said.
    pytest.mark.filterwarnings(
        r'ignore:Be aware that when using .*add the following callbacks. \["ModelCheckpoint[^"]*"\]'
    ),
]

EPOCHS, BATCHES = 2, 4
STEPS = tuple(range(1, EPOCHS * BATCHES + 1))

RESUMED = {
    **CALLBACKS,
    "dimension-seldom": lambda: [dimension(every_n_epochs=2)],
    "similarity-seldom": lambda: [similarity(every_n_epochs=2)],
    "spectrum-seldom": lambda: [spectrum(every_n_epochs=2)],
}


class ByStep:
    """Batches that depend on the step alone: a resumed run gets those that an uninterrupted one gets there."""

    def __init__(self):
        self.trainer = None

    def __len__(self):
        return BATCHES

    def __iter__(self):
        for _ in range(BATCHES):
            yield [tensor.clone() for tensor in data(8, seed=100 + self.trainer.global_step).tensors]


class Certain(Learner):
    """Draws nothing: what a checkpoint does not hold cannot make a difference."""

    def __init__(self):
        super().__init__()
        self.dropout = torch.nn.Identity()


class Validated(Callback):
    """Notes which validations a run went through."""

    def __init__(self):
        self.seen = []

    def on_validation_epoch_end(self, trainer, pl_module):
        self.seen.append((trainer.current_epoch, trainer.global_step))


def ran(*callbacks, ckpt_path=None, **options):
    seed()
    model, loader = Certain(), ByStep()
    loader.trainer = done = trainer(*callbacks, max_epochs=EPOCHS, num_sanity_val_steps=0, **options)
    done.fit(model, loader, batches(16), ckpt_path=ckpt_path)
    return outcome(model, done)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Return, for a name, what an uninterrupted run leaves behind, its callbacks, and the checkpoints it wrote."""

    @cache
    def run(name, saving):
        folder, callbacks = tmp_path_factory.mktemp(name), RESUMED[name]()
        options = (
            {"every_n_train_steps": 1} if saving == "step" else {"every_n_epochs": 1, "save_on_train_epoch_end": True}
        )
        keep = ModelCheckpoint(folder, filename="{step}", save_top_k=-1, **options)
        return ran(*callbacks, keep, enable_checkpointing=True), callbacks, folder

    return run


def differences(expected, got):
    """Return which windows are missing, mislabelled, doubled or hold other numbers; a partial one may hold fewer."""
    wrong = []
    if [entry.label for entry in got] != [entry.label for entry in expected]:
        wrong.append(f"{[entry.label for entry in got]}, not {[entry.label for entry in expected]}")
    else:
        for whole, ours in zip(expected, got, strict=True):
            if ours.partial and not whole.partial:
                rows = [(n, ours.numbers.get(key)) for key, n in whole.numbers.items() if key.endswith(".samples")]
                if not rows or not all(mine is not None and 0 < mine <= n for n, mine in rows):
                    wrong.append(f"{ours.label} is partial without the number of its rows: {rows}")
            elif ours.partial != whole.partial or not same_numbers(whole.numbers, ours.numbers, rtol=1e-9):
                wrong.append(f"{ours.label} holds other numbers")
    return wrong


@pytest.mark.parametrize("name", RESUMED)
def test_from_every_step(name, uninterrupted):
    whole, callbacks, folder = uninterrupted(name, "step")
    wrong = []
    for step in STEPS:
        again, validated = RESUMED[name](), Validated()
        result = ran(*again, validated, ckpt_path=folder / f"step={step}.ckpt")
        # Lightning skips the validation that was due when a checkpoint was written with an epoch's last batch.
        expected = [
            entry
            for entry in history(callbacks)
            if entry.stage != "val" or entry.step < step or (entry.epoch, entry.step) in validated.seen
        ]
        wrong += [f"step {step}: {text}" for text in differences(expected, history(again))]
        if not all(map(torch.equal, whole.weights, result.weights)):
            wrong.append(f"step {step}: other weights")
    assert history(callbacks)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", RESUMED)
def test_from_an_epochs_end(name, uninterrupted):
    _, callbacks, folder = uninterrupted(name, "epoch")
    again = RESUMED[name]()
    ran(*again, ckpt_path=folder / f"step={BATCHES}.ckpt")
    assert differences(history(callbacks), history(again)) == []


@pytest.mark.parametrize("name", ["stopping", "freezing", "freezing-waits", "similarity"])
def test_progress_goes_on(name, uninterrupted):
    """What is no window: the count towards stopping, what stands still, and the panes of learning dynamics."""

    def progress(callbacks):
        last = callbacks[-1]
        if isinstance(last, SaturationStopping):
            return last.wait_count, last.stopped_epoch
        return last.frozen if isinstance(last, FreezeTraining) else list(last.dynamics.panes)

    _, callbacks, folder = uninterrupted(name, "step")
    found = {}
    for step in STEPS:
        again = RESUMED[name]()
        ran(*again, ckpt_path=folder / f"step={step}.ckpt")
        found[step] = progress(again)
    assert found == dict.fromkeys(STEPS, progress(callbacks))


def test_a_run_without_callbacks_resumes_exactly(tmp_path):
    """Otherwise no history could."""
    keep = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, every_n_train_steps=1)
    whole = ran(keep, enable_checkpointing=True)
    for step in STEPS:
        again = ran(ckpt_path=tmp_path / f"step={step}.ckpt")
        assert all(map(torch.equal, whole.weights, again.weights)), step
        assert again.steps == whole.steps
