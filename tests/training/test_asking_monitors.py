"""Every monitor is asked by the same names for what it found."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from lightning_saturation import LearningDynamics, SaturationMonitor
from tests.contract.callbacks import dimension, similarity, spectrum
from tests.tiny import Net, batches, quiet, trainer

pytestmark = quiet
MAKERS = {"saturation": SaturationMonitor, "dimension": dimension, "similarity": similarity, "spectrum": spectrum}


@pytest.fixture(scope="module")
def monitors():
    made = {name: make() for name, make in MAKERS.items()}
    trainer(*made.values(), max_epochs=2).fit(Net(0.1), batches(), batches(seed=1))
    return made


@pytest.mark.parametrize("name", MAKERS)
def test_the_last_report_and_its_picture(monitors, name):
    monitor = monitors[name]
    if name == "similarity":
        assert isinstance(monitor.report(), LearningDynamics)
        assert monitor.report() is monitor.dynamics
    else:
        kept = [r for r in monitor.reports if getattr(r, "stage", "train") == "train"]
        assert monitor.report() is kept[-1]
        assert monitor.report() is not kept[0]
    assert isinstance(monitor.plot(), Figure)


@pytest.mark.parametrize("name", ["saturation", "dimension"])
def test_of_another_stage(monitors, name):
    monitor = monitors[name]
    assert monitor.report("val") is [r for r in monitor.reports if r.stage == "val"][-1]
    assert isinstance(monitor.plot("val"), Figure)
    with pytest.raises(ValueError, match=r"among \['train', 'val'\], got 'predict'"):
        monitor.report("predict")


@pytest.mark.parametrize("name", MAKERS)
def test_before_anything_was_measured(name):
    monitor = MAKERS[name]()
    for ask in (monitor.report, monitor.plot):
        with pytest.raises(ValueError, match=r"Expected a .*, got none"):
            ask()
