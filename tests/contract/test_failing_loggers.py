"""Promise 2: a logger that fails, in whatever it is asked for, ends neither training nor evaluation."""

from __future__ import annotations

import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest
from lightning.pytorch.loggers.logger import Logger

import lightning_saturation
from tests.contract.callbacks import CALLBACKS, WATCHING, history, same_history
from tests.contract.runs import Heard, Learner, outcome, seed
from tests.tiny import batches, quiet, trainer

pytestmark = quiet

OURS = str(Path(lightning_saturation.__file__).parent)

METHODS = (
    "log_metrics", "log_hyperparams", "log_graph", "save", "finalize", "after_save_checkpoint",
    "experiment", "name", "version", "save_dir", "root_dir", "log_dir", "run_id", "group_separator",
    "log_image", "log_table", "log_text", "log_figure", "log_artifact", "add_image", "add_figure", "add_text",
    "add_histogram", "add_scalar", "add_scalars", "flush", "log", "define_metric", "summary", "config",
)  # fmt: skip


class Unreachable(OSError):
    """What a full disk or a lost connection raises."""


class Broken(Logger):
    """A logger of any kind, which fails in ``failing`` whenever a callback of ours asks for that.

    Metrics that the Trainer passes on are ours too: the module logs none. What the Trainer asks for on its own account
    is answered, since that would end a run without us as well.
    """

    def __init__(self, failing):
        super().__init__()
        self.failing, self.asked = failing, set()

    def ask(self, what, *, ours):
        if ours:
            self.asked.add(what)
            if what == self.failing:
                raise Unreachable(f"no way to {what}")

    def log_metrics(self, metrics, step=None):
        self.ask("log_metrics", ours=True)

    def log_hyperparams(self, *args, **kwargs):
        self.ask("log_hyperparams", ours=_asked_by_us())

    def log_graph(self, *args, **kwargs):
        self.ask("log_graph", ours=_asked_by_us())

    def save(self):
        self.ask("save", ours=_asked_by_us())

    def finalize(self, status):
        self.ask("finalize", ours=_asked_by_us())

    def after_save_checkpoint(self, *args):
        self.ask("after_save_checkpoint", ours=_asked_by_us())

    @property
    def experiment(self):
        self.ask("experiment", ours=_asked_by_us())
        return _Anything(self)

    @property
    def name(self):
        self.ask("name", ours=_asked_by_us())
        return "broken"

    @property
    def version(self):
        self.ask("version", ours=_asked_by_us())
        return 0


class _Anything:
    """What draws, writes and counts for any of the loggers that there are."""

    def __init__(self, logger):
        self._logger = logger

    def __getattr__(self, what):
        if what.startswith("_") or what not in METHODS:
            raise AttributeError(what)
        return lambda *args, **kwargs: self._logger.ask(what, ours=True)


class WandbLogger(Broken):
    """Loggers are told by the names of their classes."""


class MLFlowLogger(Broken):
    run_id = "1"


class Plain(Broken):
    """Has nothing to draw with."""

    experiment = None


KINDS = {"tensorboard": Broken, "wandb": WandbLogger, "mlflow": MLFlowLogger, "plain": Plain}


def _asked_by_us():
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_filename.startswith(OURS):
            return True
        frame = frame.f_back
    return False


def fitted(*callbacks, loggers=()):
    seed()
    model = Learner()
    done = trainer(*callbacks, logger=list(loggers), max_epochs=3, log_every_n_steps=1)
    done.fit(model, batches(shuffle=True), batches(16))
    return outcome(model, done)


def ran(how, *callbacks, loggers=()):
    if how == "fit":
        return fitted(*callbacks, loggers=loggers)
    seed()
    model = Learner()
    done = trainer(*callbacks, logger=list(loggers))
    getattr(done, how)(model, batches(16), verbose=False)
    return outcome(model, done)


@cache
def alone(how):
    return ran(how)


@cache
def asked(name, how):
    """Return what loggers of each kind are asked for on our account while they work, and what is remembered then."""
    loggers, callbacks = {kind: cls(failing=None) for kind, cls in KINDS.items()}, CALLBACKS[name]()
    with Heard(), suppress(Exception):  # it is not this test that such a run ends well
        ran(how, *callbacks, loggers=loggers.values())
    return [(kind, method) for kind, logger in loggers.items() for method in sorted(logger.asked)], history(callbacks)


@pytest.mark.parametrize("how", ["fit", "validate", "test"])
@pytest.mark.parametrize("name", CALLBACKS)
def test_a_run_goes_on(name, how):
    """Every logger of every kind at once, each failing in one thing."""
    faults, expected = asked(name, how)
    callbacks = CALLBACKS[name]()
    with Heard() as heard:
        result = ran(how, *callbacks, loggers=[KINDS[kind](failing=method) for kind, method in faults])
    assert alone(how).differs(result, weights=name in WATCHING) == []
    assert same_history(history(callbacks), expected)
    assert [(kind, method) for kind, method in faults if not heard.about(f"no way to {method}")] == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CALLBACKS)
def test_training_goes_on_without_metrics(name, kind):
    """The one thing that every logger does, alone: here it is told which callback ends which run."""
    with Heard():
        result = fitted(*CALLBACKS[name](), loggers=[KINDS[kind](failing="log_metrics")])
    assert alone("fit").differs(result, weights=name in WATCHING) == []


@pytest.mark.parametrize("name", CALLBACKS)
def test_loggers_are_asked_at_all(name):
    """Otherwise nothing above could fail."""
    assert {kind for kind, method in asked(name, "fit")[0] if method == "log_metrics"} == set(KINDS)
