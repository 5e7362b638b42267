from __future__ import annotations

import copy
import gc
import math
import pickle

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn

from lightning_saturation import SaturationMonitor, SaturationStopping
from tests.tiny import (
    LAYERS,
    SAMPLES,
    Net,
    assert_holds,
    batches,
    data,
    fit,
    is_untouched,
    outputs,
    quiet,
    seen,
    trainer,
)

pytestmark = quiet


# Arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"delta": 0.0}, r"Expected `delta` in \(0, 1\], got 0.0"),
        ({"delta": 1.5}, r"Expected `delta` in \(0, 1\], got 1.5"),
        ({"delta": math.nan}, r"Expected `delta` in \(0, 1\], got nan"),
        ({"pooling": "avg"}, "Expected `pooling` to be one of .*'mean'.*got 'avg'"),
        ({"stages": ("train", "validation")}, "Expected `stages` to hold some of .*'val'.*got .*'validation'"),
        ({"stages": ()}, r"Expected `stages` to hold some of .* got \(\)"),
        ({"stages": "predict"}, "Expected `stages` to hold some of .* got 'predict'"),
        ({"every_n_train_steps": 0}, "Expected `every_n_train_steps` of at least 1 or None, got 0"),
        ({"every_n_train_steps": -3}, "Expected `every_n_train_steps` of at least 1 or None, got -3"),
        ({"name": ""}, "Expected a `name` to begin the metric keys with, of letters.* got ''"),
    ],
)
def test_an_argument_out_of_range_is_refused_at_once(arguments, message):
    with pytest.raises(ValueError, match=message):
        SaturationMonitor(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": ["body.frist"]}, "Expected `layers` to name modules.* 'body.frist'; did you mean 'body.first'"),
        ({"layers": ["encoder.*"]}, r"Expected `layers` to name modules.*'encoder.\*'.*'body.first'"),
        ({"exclude": ["body.heat"]}, "Expected `exclude` to name modules.* 'body.heat'; did you mean 'body.head'"),
        ({"exclude": ["*"]}, "got none among modules of the types"),
        ({"output_layers": ["head"]}, "Expected `output_layers` to name tracked layers, among .*got 'head'"),
        ({"output_layers": ["body.first"], "exclude": ["body.first"]}, "Expected `output_layers` to name tracked"),
    ],
)
def test_a_wrong_layer_ends_fitting_before_it_starts(arguments, message):
    model = Net()
    with pytest.raises(ValueError, match=message):
        fit(model, SaturationMonitor(**arguments))
    assert is_untouched(model)


def test_a_model_without_supported_layers_is_refused():
    class Plain(Net):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.BatchNorm1d(4), nn.ReLU())

    with pytest.raises(ValueError, match=r"Expected a model with linear.*got none among .*'BatchNorm1d', 'Plain'"):
        fit(Plain(), SaturationMonitor())


def test_one_string_is_one_name():
    monitor = SaturationMonitor(layers="body.*", exclude="body.first", output_layers="body.s*", stages="train")
    fit(Net(), monitor, val=batches(16))
    (report,) = monitor.reports
    assert list(report.layers) == ["body.second", "body.head"]
    assert report.output_layers == ("body.second",)


# What is measured, and what it is called


def test_the_average_leaves_the_last_layer_out_unless_told():
    averages = {}
    for output_layers in (None, (), ("body.second", "body.head")):
        monitor = SaturationMonitor(output_layers=output_layers)
        done = fit(Net(), monitor)
        saturation = monitor.reports[0].saturation
        averages[output_layers] = monitor.reports[0].average
        assert done.callback_metrics["saturation/train/average"] == pytest.approx(averages[output_layers])
    first, second, head = (saturation[name] for name in LAYERS)
    assert averages[None] == pytest.approx((first + second) / 2)
    assert averages[()] == pytest.approx((first + second + head) / 3)
    assert averages["body.second", "body.head"] == pytest.approx(first)


def test_delta_reaches_the_numbers():
    dimensions = []
    for delta in (0.5, 0.95, 1.0):
        monitor = SaturationMonitor(delta=delta)
        fit(Net(), monitor)
        assert monitor.reports[0].delta == delta
        dimensions.append(monitor.reports[0].layers["body.first"].intrinsic_dimension)
    assert dimensions == [1, 2, 4]  # four inputs of very different variance


@pytest.mark.parametrize(
    ("pooling", "samples", "features"), [("mean", 32, 5), ("positions", 96, 5), ("flatten", 32, 15)]
)
def test_pooling_reaches_the_rows(pooling, samples, features):
    class Images(Net):
        def __init__(self):
            super().__init__()
            self.convolution = nn.Conv2d(1, 5, 2)

        def forward(self, x):
            return self.convolution(x.view(-1, 1, 2, 2).repeat(1, 1, 1, 2)).mean((2, 3))

    monitor = SaturationMonitor(layers="convolution", pooling=pooling)
    fit(Images(), monitor)
    layer = monitor.reports[0].layers["convolution"]
    assert (layer.samples, layer.features) == (samples, features)


def test_keys():
    done = fit(Net(), SaturationMonitor(), val=batches(16), max_epochs=6)  # a change needs five windows before
    expected = {
        f"saturation/{stage}/{what}"
        for stage in ("train", "val")
        for what in (*(f"layers/{layer}" for layer in LAYERS), "average", "change", "converged")
    }
    bar = {"saturation/train", "saturation/change"}  # as short as they must be there
    assert {key for key in done.callback_metrics if key.startswith("saturation")} == expected | bar
    assert {key for key in done.progress_bar_metrics if key.startswith("saturation")} == bar
    for short, key in (("train", "train/average"), ("change", "train/change")):
        assert done.progress_bar_metrics[f"saturation/{short}"] == done.callback_metrics[f"saturation/{key}"]


def test_charts_of_layers_can_be_left_out():
    done = fit(Net(), SaturationMonitor(log_layers=False, stages=("train",)))
    logged = {key for key in done.callback_metrics if key.startswith("saturation")}
    assert logged == {"saturation/train/average", "saturation/train/converged", "saturation/train"}


def test_a_layer_called_as_a_summary_keeps_a_key_of_its_own():
    class Confusing(Net):
        def __init__(self):
            super().__init__()
            self.average, self.change = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            return self.change(self.average(self.body(x)))

    monitor = SaturationMonitor()
    metrics = fit(Confusing(), monitor, max_epochs=6).callback_metrics
    report = monitor.reports[-1]
    assert metrics["saturation/train/average"] == pytest.approx(report.average)
    assert metrics["saturation/train/layers/average"] == pytest.approx(report.saturation["average"])
    assert metrics["saturation/train/layers/change"] == pytest.approx(report.saturation["change"])
    assert metrics["saturation/train/change"] == 0.0


def test_layers_come_in_the_order_in_which_they_run():
    class Backwards(Net):
        def __init__(self):
            super().__init__()
            self.last, self.early = nn.Linear(6, 3), nn.Linear(4, 6)

        def forward(self, x):
            return self.last(self.early(x)) + self.body(x)

    monitor = SaturationMonitor()
    fit(Backwards(), monitor)
    assert list(monitor.reports[0].layers) == ["early", "last", *LAYERS]


# Windows


def test_reports_say_when():
    monitor = SaturationMonitor()
    fit(Net(), monitor, val=batches(16), max_epochs=3)
    assert [(r.stage, r.epoch, r.step) for r in monitor.reports] == [
        (stage, epoch, 4 * epoch + 4) for epoch in range(3) for stage in ("train", "val")
    ]
    assert not any(report.partial for report in monitor.reports)


def test_each_window_starts_empty():
    """With a learning rate of 0 all epochs are alike; what is left of an earlier one would show in the samples."""
    monitor = SaturationMonitor()
    fit(model := Net(), monitor, max_epochs=3)
    expected = outputs(model.body, data().tensors[0])
    assert len(monitor.reports) == 3
    for report in monitor.reports:
        assert_holds(report, expected)


def test_windows_of_steps():
    monitor = SaturationMonitor(every_n_train_steps=3)
    fit(Net(), monitor, max_epochs=2)  # 8 steps: 3, 3, and 2 when training ends
    assert seen(monitor) == [dict.fromkeys(LAYERS, 8 * steps) for steps in (3, 3, 2)]
    assert [report.step for report in monitor.reports] == [3, 6, 8]
    assert [report.partial for report in monitor.reports] == [False, False, True]


def test_windows_of_steps_count_optimizer_steps_not_batches():
    monitor = SaturationMonitor(every_n_train_steps=2)
    fit(Net(), monitor, accumulate_grad_batches=2, max_epochs=2)
    assert seen(monitor) == [dict.fromkeys(LAYERS, 32)] * 2
    assert [report.step for report in monitor.reports] == [2, 4]


def test_stages_are_those_asked_for():
    for stages, expected in (("train",), ["train"]), (("val",), ["val"]), (("train", "val"), ["train", "val"]):
        monitor = SaturationMonitor(stages=stages)
        fit(Net(), monitor, val=batches(16))
        assert [report.stage for report in monitor.reports] == expected


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_validate_and_test_give_their_stage_whatever_the_stages(stage):
    model, monitor = Net(), SaturationMonitor(stages=("train",))
    done = trainer(monitor)
    getattr(done, stage)(model, batches(), verbose=False)
    (report,) = monitor.reports
    key = {"validate": "val", "test": "test"}[stage]
    assert report.stage == key
    assert_holds(report, outputs(model.body, data().tensors[0]))
    assert done.callback_metrics[f"saturation/{key}/average"] == pytest.approx(report.average)
    assert is_untouched(model)


def test_predicting_is_not_watched():
    monitor = SaturationMonitor()
    trainer(monitor).predict(model := Net(), batches())
    assert monitor.reports == []
    assert is_untouched(model)


# Trouble


def test_rows_with_nan_are_left_out_and_counted():
    class Broken(Net):
        def training_step(self, batch, batch_idx):
            x = batch[0].clone()
            x[0] = math.nan
            self(x)
            return torch.zeros((), requires_grad=True)

    monitor = SaturationMonitor()
    fit(model := Broken(), monitor)
    x = data().tensors[0].view(4, 8, 4)[:, 1:].flatten(0, 1)
    layer = monitor.reports[0].layers["body.first"]
    assert (layer.samples, layer.skipped) == (28, 4)
    expected = model.body.first(x).detach().double().T.cov().trace()
    assert layer.total_variance == pytest.approx(float(expected), rel=1e-9)


def test_a_width_that_changes_within_training_does_not_end_it():
    class Growing(Net):
        def __init__(self):
            super().__init__()
            self.free = nn.Identity()

        def training_step(self, batch, batch_idx):
            self.free(torch.ones(8, 7 if batch_idx == 2 else 6))
            return self.loss(batch)

    monitor = SaturationMonitor(layers=["free", "body.*"])
    with pytest.warns(UserWarning, match="Some outputs of layer 'free' are left out .*6 features as before, got 7"):
        fit(Growing(), monitor)
    assert seen(monitor) == [{"free": 24, **dict.fromkeys(LAYERS, SAMPLES)}]


def test_fewer_samples_than_features_is_flagged():
    monitor = SaturationMonitor()
    fit(Net(), monitor, train=batches(5, size=5))
    assert "fewer samples than needed" in str(monitor.reports[0])


# Copies, and several in one Trainer


def test_copies_and_pickles_keep_the_history_and_nothing_that_runs():
    monitor = SaturationMonitor(every_n_train_steps=2)
    fit(Net(), monitor)
    for other in (copy.deepcopy(monitor), pickle.loads(pickle.dumps(monitor))):
        assert [str(report) for report in other.reports] == [str(report) for report in monitor.reports]
        fit(Net(), other)
        assert len(other.reports) == 2


def test_a_copy_made_during_training_watches_nothing():
    class Copying(Callback):
        def on_train_batch_end(self, *args):
            self.copy, self.pickled = copy.deepcopy(monitor), pickle.dumps(monitor)

    monitor, copying = SaturationMonitor(), Copying()
    fit(Net(), monitor, copying)
    assert b"LayerTracker" not in copying.pickled
    fit(Net(), copying.copy)
    assert seen(copying.copy) == seen(monitor)


def test_two_monitors_side_by_side():
    first, second = SaturationMonitor(), SaturationMonitor(delta=0.5)
    metrics = fit(Net(), first, second).callback_metrics
    assert (first.name, second.name) == ("saturation", "saturation-2")
    for monitor in (first, second):
        assert metrics[f"{monitor.name}/train/average"] == pytest.approx(monitor.reports[0].average)
    assert first.reports[0].average != second.reports[0].average


def test_alike_monitors_get_names_that_nobody_has_chosen():
    monitors = [SaturationMonitor(name=name) for name in ("a", "a-2", "a", "b")]
    fit(Net(), *monitors)
    assert [monitor.name for monitor in monitors] == ["a", "a-2", "a-3", "b"]
    assert {monitor.state_key for monitor in monitors} == {
        f"SaturationMonitor{{'name': '{name}'}}" for name in ("a", "a-2", "a-3", "b")
    }


def test_every_trainer_that_fits_starts_a_history():
    monitor = SaturationMonitor()
    model = Net()
    gc.freeze()  # what other tests left is not looked through again and again
    for _ in range(5):
        done = trainer(monitor)
        done.validate(model, batches(), verbose=False)
        done.fit(model, batches())
        assert [report.stage for report in monitor.reports] == ["val", "train"]
        del done
        gc.collect()  # the next Trainer may well lie where this one did
    gc.unfreeze()
    trainer(monitor).test(model, batches(), verbose=False)
    assert [report.stage for report in monitor.reports] == ["val", "train", "test"]


def test_a_second_fit_goes_on():
    model, monitor = Net(), SaturationMonitor()
    done = fit(model, monitor)
    done.fit_loop.max_epochs = 3
    done.fit(model, batches())
    assert [report.epoch for report in monitor.reports] == [0, 1, 2]
    assert len(monitor.settling["train"]) == 2  # those since fitting started


# Learning rates


def stepping(milestones, gamma=0.1, interval="epoch"):
    class Stepping(Net):
        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=1e-30)
            scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": interval}}

    return Stepping()


@pytest.mark.parametrize("val", [None, batches(16)])
def test_a_report_holds_the_learning_rate_of_its_own_window(val):
    monitor = SaturationMonitor()
    fit(stepping([2]), monitor, val=val, max_epochs=4)
    for stage in ("train",) if val is None else ("train", "val"):
        rates = [report.learning_rates[0] for report in monitor.reports if report.stage == stage]
        assert rates == pytest.approx([1e-30, 1e-30, 1e-31, 1e-31])


def test_learning_rates_of_windows_of_steps():
    monitor = SaturationMonitor(every_n_train_steps=2)
    fit(stepping([4], interval="step"), monitor, max_epochs=2)
    assert [report.learning_rates[0] for report in monitor.reports] == pytest.approx([1e-30, 1e-30, 1e-31, 1e-31])


def test_a_change_of_learning_rate_starts_the_count_again():
    """Nothing moves here, so the profile has settled two windows after the first three of one regime."""
    monitor = SaturationMonitor()
    fit(stepping([5]), monitor, SaturationStopping(window=3, patience=2, min_epochs=99), max_epochs=10)
    settled = [window.converged for window in monitor.settling["train"]]
    assert settled == [False, False, False, False, True, False, False, False, False, True]


@pytest.mark.parametrize(("run", "stage"), [("validate", "val"), ("test", "test")])
def test_evaluation_returns_what_it_measured(run, stage):
    monitor = SaturationMonitor()
    (returned,) = getattr(trainer(monitor), run)(Net(), batches(), verbose=False)
    assert returned[f"saturation/{stage}/average"] == pytest.approx(monitor.reports[-1].average)
