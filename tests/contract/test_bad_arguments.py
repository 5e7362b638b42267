"""Promise 11, second half: an argument that cannot be meant is refused where it is given, in words that help."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest

from lightning_saturation import (
    DimensionMonitor,
    FreezeTraining,
    SaturationMonitor,
    SaturationStopping,
    SimilarityMonitor,
    SpectrumMonitor,
)

CLASSES = (
    SaturationMonitor, SaturationStopping, DimensionMonitor, SimilarityMonitor, SpectrumMonitor, FreezeTraining,
)  # fmt: skip

COUNT = (2.5, True, math.nan, math.inf, "2", 0, -1, [1])
SHARE = ("0.9", math.nan, -0.1, 1.5, True, [0.5])
NAME = ("", "../../escape", "/absolute", "a/b", "a\\b", ".", "..", "a\nb", "a\0b", 5, None)
TEXTS = (5, [5], "")  # names or globs, one or several

WRONG = {
    "delta": (*SHARE, 0),
    "discard": SHARE,
    "tolerance": (*SHARE, 0),
    "until": (*SHARE, 0),
    "name": NAME,
    "monitor": ("", 5, None),
    "every_n_train_steps": COUNT,
    "every_n_epochs": (*COUNT, 1.5, None),
    "samples": (*COUNT, 100.5, 1, None),
    "max_bytes": ("1G", *COUNT),
    "bins": (*COUNT, None),
    "spikes": (2.5, True, math.nan, "2", -1, None),
    "probes": (2.5, True, math.nan, -1, "a"),
    "degree": (*COUNT, None),
    "window": (3.7, *COUNT, None),
    "patience": (*COUNT, None),
    "min_epochs": (2.5, True, "3", -1),
    "seconds": ("1", math.nan, -1, True, [1]),
    "seed": ("0", 0.5, None, True),
    "stages": (None, (), "training", ("train", "valid"), 5, [5]),
    "stage": (None, "test", 5, "training"),
    "pooling": (None, "average", 5),
    "method": (None, "cosine", 5),
    "estimator": (None, "median", 5),
    "schedule": (None, "exponential", 5),
    "covariance": (None, "full", 5),
    "max_samples": ("all", 0, 2.5, True, math.nan, [1]),
    "state_device": ("gpu0", "meta", 5, "cuda:99"),
    "save_dir": (5, b"folder", "a\0b", ["folder"]),
    "at": (0.5, None, (1.5,), (-0.1,), ("0.5",), (math.nan,), (True,)),
    "layers": TEXTS,
    "exclude": TEXTS,
    "output_layers": TEXTS,
    "mask": (5, True, ["attention_mask"]),
    "blocks": (5, [5], [["a"], 5], ""),
    "per_class": ("yes", 2, None),
    "log_layers": ("yes", 2, None),
    "forward": (5, "forward"),
    "log_windows": ("yes", 2, None),
    "progress": ("yes", 2, None),
}

CALLS = [
    pytest.param(cls, argument, value, id=f"{cls.__name__}-{argument}-{value!r}")
    for cls in CLASSES
    for argument in list(inspect.signature(cls).parameters)
    for value in WRONG[argument]
    # `probes` are batches of inputs for one, and a number for the other.
    if not (cls is SimilarityMonitor and argument == "probes" and not isinstance(value, int | float))
    # A stopper's is the name of somebody else, and no part of a file's.
    if not (cls is SaturationStopping and argument == "name" and value not in ("", 5, None))
]


@pytest.mark.parametrize(("cls", "argument", "value"), CALLS)
def test_is_refused_at_once(cls, argument, value):
    with pytest.raises((TypeError, ValueError), match="Expected") as raised:
        cls(**{argument: value})
    assert argument in str(raised.value)
    assert "got" in str(raised.value)


RIGHT = {
    "delta": (1, 0.5, np.float64(0.5)),
    "every_n_train_steps": (None, 7),
    "samples": (100, np.int64(100)),
    "stages": ("train", ["val"], ("train", "val", "test")),
    "save_dir": (None, "folder"),
    "name": ("saturation", "my run-2_b.c"),
    "layers": (None, "body.*", ["body.first", "*.head"]),
    "max_samples": (None, "auto", 10),
    "state_device": (None, "cpu"),
    "at": ((), (0.0, 1), [0.25]),
    "seconds": (None, 1, 0.5),
    "window": (3, 12),
    "seed": (0, 7),
    "blocks": (None, ["a", ["b", "c"]]),
}


@pytest.mark.parametrize("cls", CLASSES)
def test_what_can_be_meant_is_taken(cls):
    """And numbers from NumPy are numbers."""
    for argument in set(inspect.signature(cls).parameters) & RIGHT.keys():
        for value in RIGHT[argument]:
            cls(**{argument: value})
