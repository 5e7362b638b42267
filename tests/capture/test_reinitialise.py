"""New weights for a model that stays as it is."""

from __future__ import annotations

import torch
from torch import nn

from lightning_saturation.capture.evaluation import fresh_weights, with_weights


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.recurrent = nn.LSTM(4, 4, batch_first=True)
        self.head = nn.Linear(4, 3)
        self.token = nn.Parameter(torch.ones(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(x.flatten(0, 1)).view_as(x) + self.token
        x = self.attention(x, x, x)[0]
        return self.head(self.recurrent(x)[0])


def test_weights_are_drawn_as_at_the_start_and_nothing_else_changes() -> None:
    torch.manual_seed(1)
    model = Network()
    for parameter in model.parameters():
        parameter.data.add_(5.0)
    model.norm.running_mean += 3.0
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    weights, kept = fresh_weights(model, seed=4)
    again, _ = fresh_weights(model, seed=4)
    assert kept == ["token"]
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert set(weights) | set(kept) == set(before)
    assert float(weights["head.weight"].abs().max()) <= 0.5  # Kaiming uniform of four inputs
    assert float(weights["attention.in_proj_weight"].abs().max()) < 1.0
    assert float(weights["recurrent.weight_ih_l0"].abs().max()) <= 0.5
    assert not weights["norm.running_mean"].any()


def test_the_function_runs_with_them_and_fires_hooks() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2))
    seen = []
    model[0].register_forward_hook(lambda module, args, output: seen.append(output))
    weights, _ = fresh_weights(model, seed=1)
    x = torch.ones(5, 3)
    output = with_weights(model, weights)(x)
    torch.testing.assert_close(seen[0], x @ weights["0.weight"].T + weights["0.bias"])
    assert not torch.equal(output, model(x))
