"""The paper's runs at a scale of seconds: every kind of run, going on after a kill, the queue."""

import json
import signal

import pytest
import torch

from examples.paper.run import MEASUREMENTS, Places, find, plan, run, small
from tests.integration.programs import ROOT, run_here

KINDS = [
    "cat-dog_mlp_8_s0",
    "unbalanced_vgg11_0.0625_s0",
    "random-labels_vgg11_0.125_e60_n10000_plain_s0",
    "photos_vgg11_0.125_e60_lr0.05_wd0.0005_n16000_sgd_step_s0",
    "photos_autoencoder_16_plain_s0",
    "photos_resnet18_0.25_s0",
    "text_transformer_64_s0",
]


def test_names_tell_runs_apart():
    names = [settings.name for settings in plan()]
    assert len(set(names)) == len(names) > 100
    assert {"mlp", "vgg11", "vgg13", "vgg16", "vgg19", "autoencoder", "resnet18", "transformer"} == {
        settings.model for settings in plan()
    }


@pytest.mark.parametrize("name", KINDS)
def test_a_run_of_each_kind_leaves_a_whole_record(places, name):
    settings = small(find(name))
    run(settings, places)
    file = places.results / f"{settings.name}.json"
    record = json.loads(file.read_text(), parse_constant=pytest.fail)  # no NaN: not every reader takes it
    assert record["failures"] == {}
    assert set(record["measured"]) == set(MEASUREMENTS)
    assert record["finished"]
    assert file.stat().st_size < 200_000
    assert [row["epoch"] for row in record["rows"]] == [0, 1]
    for stage in ("train", "val"):
        assert all(f"{stage}/loss" in row for row in record["rows"])
        assert set(record[stage]["continuous_saturation"]) == set(record[stage]["layers"])
        assert all(len(values) == 2 for values in record[stage]["continuous_saturation"].values())
    whole = record["measured"]["projection"]["whole"]
    assert whole["loss"] == pytest.approx(record["rows"][-1]["val/loss"], rel=1e-3)


def test_a_killed_run_goes_on_where_it_was(places, tmp_path, monkeypatch):
    settings = small(find("photos_vgg11_0.0625_e60_n16000_cosine_s0"))
    whole = run(settings, places)
    other = Places(places.data, tmp_path / "other", tmp_path / "again")
    with monkeypatch.context() as patched:
        patched.setattr("paper.record.LastEpoch.on_train_epoch_end", _killed_after_writing())
        with pytest.raises(RuntimeError, match="killed"):
            run(settings, other)
    assert not list(other.results.glob("*"))
    resumed = run(settings, other)
    assert [row.pop("resumed", None) for row in resumed["rows"]] == [None, True]
    for stage in ("train", "val"):
        assert resumed[stage] == whole[stage]
    times = ("seconds", "processor_seconds")
    for ours, theirs in zip(resumed["rows"], whole["rows"], strict=True):
        assert {k: v for k, v in ours.items() if k not in times} == {k: v for k, v in theirs.items() if k not in times}


def test_epochs_differ_and_a_finished_run_is_left_alone(places):
    settings = small(find("cat-dog_mlp_8_s0"))
    record = run(settings, places)
    assert record["rows"][0]["train/loss"] != record["rows"][1]["train/loss"]
    file = places.results / f"{settings.name}.json"
    written = file.stat().st_mtime_ns
    assert run(settings, places)["rows"] == record["rows"]
    assert file.stat().st_mtime_ns == written


def test_a_measurement_that_fails_is_named_and_can_be_taken_again(places, monkeypatch):
    settings = small(find("cat-dog_mlp_16_s0"))

    def fails(_):
        raise ArithmeticError("no such number")

    with monkeypatch.context() as patched:
        patched.setitem(MEASUREMENTS, "dimension", fails)
        record = run(settings, places)
    assert record["failures"] == {"dimension": "ArithmeticError: no such number"}
    assert record["finished"]
    assert record["measured"]["spectrum"]
    record = run(settings, places, again=["dimension"])
    assert record["failures"] == {}
    assert record["measured"]["dimension"]["trained"]


@pytest.fixture
def _sigterm_as_it_was():
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


@pytest.mark.usefixtures("_sigterm_as_it_was")
def test_the_queue_takes_what_is_left(places, monkeypatch, capsys):
    command = [ROOT / "examples/paper/run_all.py", "--data", "digits", "--scale", "small", "--only", "cat-dog_mlp_8_s0"]
    command += ["--cache", str(places.cache), "--results", str(places.results)]
    assert run_here(*command, folder=ROOT, monkeypatch=monkeypatch) == 0  # the run is a process of its own
    assert "0 of 1 runs done" in capsys.readouterr().out
    assert len(list(places.results.glob("*.json"))) == 1
    run_here(*command, "--status", folder=ROOT, monkeypatch=monkeypatch)
    said = capsys.readouterr().out
    assert "1 of 1 runs done" in said
    assert said.count("done  ") == 1


def _killed_after_writing():
    from paper.record import LastEpoch

    write = LastEpoch.on_train_epoch_end

    def write_and_die(self, trainer, pl_module):
        write(self, trainer, pl_module)
        raise RuntimeError("killed")

    return write_and_die


def test_unbalanced_classes_have_5_to_15_percent(places):
    from paper.data import chosen
    from paper.settings import Settings

    from examples.common import Images

    labels = torch.arange(10).repeat_interleave(300)
    pixels = torch.zeros(3000, 1, 8, 8, dtype=torch.uint8)
    everything = Images(pixels, labels, pixels, labels, tuple("abcdefghij"))
    found = chosen(everything, Settings(data="unbalanced", seed=1)).train_labels.bincount()
    assert found.max() == 300
    assert found.min() == 100
    assert float(found.max() / found.sum()) == pytest.approx(0.15, abs=0.001)
    assert found.tolist() != sorted(found.tolist())
