"""Looks of several callbacks at one step begin and end first to last, which modes and compiler stances do not."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from lightning_saturation import SaturationMonitor
from lightning_saturation.capture.look import Look
from tests.tiny import Net, batches, fit, quiet

pytestmark = quiet


class Linears(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(4, 3), nn.Linear(3, 2))


def compiles_again() -> bool:
    torch.compiler.reset()
    seen = []

    def backend(graph, inputs):
        seen.append(graph)
        return graph.forward

    torch.compile(lambda x: x + 1, backend=backend)(torch.ones(2))
    return bool(seen)


def test_looks_end_in_any_order_and_leave_nothing():
    model = Linears()
    first, second = (Look(model, dict(model.named_children())) for _ in range(2))
    first.begin()
    second.begin()
    model(torch.rand(5, 4))
    first.end()
    assert _get_current_dispatch_mode() is not None
    model(torch.rand(5, 4))
    second.end()
    assert _get_current_dispatch_mode() is None
    assert compiles_again()
    assert first.flow.ran == second.flow.ran == ("0", "1")
    assert first.flow.outputs == second.flow.outputs == ("1",)


def test_two_monitors_leave_compiled_functions_compiled():
    fit(Net(), SaturationMonitor(), SaturationMonitor(pooling="max"), val=batches(16))
    assert _get_current_dispatch_mode() is None
    assert compiles_again()
