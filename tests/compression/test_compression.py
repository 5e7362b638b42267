"""compress and project_outputs: exact at full rank, optimal by principal directions, cheaper or left alone, undone."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from lightning_saturation import compress, project_outputs
from lightning_saturation.functional import cca


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 12, 3, padding=1, stride=2, padding_mode="circular"),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.Conv2d(12, 16, 3, bias=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 30),
        nn.Tanh(),
        nn.Linear(30, 3),
    ).eval()


def images(samples=200, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((samples, 2, 8, 8))).float()


DATA = images()
NAMES = ("0", "3", "6", "8")


@pytest.mark.parametrize("basis", ["pca", "svcca", "active", "random"])
def test_all_directions_are_the_network_itself(basis):
    model = network()
    expected = model(DATA)
    with project_outputs(
        model, DATA.split(50), 1.0 if basis == "pca" else None, basis=basis, keep=None if basis == "pca" else 1.0
    ) as ranks:
        torch.testing.assert_close(model(DATA), expected, rtol=0, atol=2e-5)
    assert ranks["8"] == 3
    assert torch.equal(model(DATA), expected)
    assert not any(module._forward_hooks for module in model.modules())


def test_neurons_that_lie_in_the_directions_are_kept_and_the_others_held_at_their_mean():
    """Figure 2b of SVCCA: one direction may need many neurons."""
    model = network()
    plain = model[:7](DATA).detach().double()
    centred = plain - plain.mean(0)
    direction = torch.linalg.svd(centred, full_matrices=False).Vh[:1]
    projected = centred @ direction.T @ direction
    shares = projected.square().sum(0) / centred.square().sum(0)
    kept = shares.argsort(descending=True)[:7]
    with project_outputs(model, [DATA], ranks=1, layers=["6"], neurons=7) as ranks:
        found = model[:7](DATA).detach().double() - plain.mean(0)
    assert ranks == {"6": 1}
    expected = torch.zeros_like(projected)
    expected[:, kept] = projected[:, kept]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    with project_outputs(model, [DATA], ranks=1, layers=["6"], neurons=30):
        torch.testing.assert_close(model[:7](DATA).detach().double() - plain.mean(0), projected, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="`neurons` of at least 1 or None, got 0"):
        project_outputs(model, [DATA], ranks=1, neurons=0).__enter__()


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_principal_directions_leave_the_least_error(rank):
    model = network()
    outputs = model[:7](DATA).detach().double().numpy()
    with project_outputs(model, [DATA], ranks=rank, layers=["6"]):
        error = np.square(model[:7](DATA).detach().numpy() - outputs).sum()
    values = np.linalg.svd(outputs - outputs.mean(0), compute_uv=False)
    assert error == pytest.approx(np.square(values[rank:]).sum(), rel=1e-3)


def test_canonical_directions_keep_what_correlates_with_the_answer():
    model = network()
    hidden, answer = model[:7](DATA).detach().double(), model(DATA).detach().double()
    with project_outputs(model, [DATA], ranks=3, layers=["6"], basis="svcca"):
        projected = model[:7](DATA).detach().double()
    # Three directions hold all that a linear readout of three logits uses, within the 99 % that SVCCA keeps.
    full = cca(hidden, answer, delta=0.99).correlations
    # The kept rank of float32 outputs is three: what is left out is rounding.
    kept = cca(projected - projected.mean(0), answer, delta=1 - 1e-9).correlations
    torch.testing.assert_close(kept, full, rtol=0, atol=1e-3)
    assert int(torch.linalg.matrix_rank(projected - projected.mean(0), rtol=1e-4)) == 3


def test_another_network_gives_the_directions_that_both_have():
    model, other = network(0), network(1)
    with project_outputs(model, [DATA], ranks=5, layers=["3"], basis="svcca", reference=other):
        shared = model[:4](DATA).detach().movedim(1, -1).flatten(0, 2)
    theirs = other[:4](DATA).detach().movedim(1, -1).flatten(0, 2)
    mine = model[:4](DATA).detach().movedim(1, -1).flatten(0, 2)
    full = cca(mine, theirs, delta=0.99).correlations[:5]
    torch.testing.assert_close(cca(shared, theirs, delta=0.99).correlations[:5], full, rtol=0, atol=0.05)


def test_neurons_hold_still_outside_their_subspace():
    model = network()
    outputs = model[:7](DATA).detach()
    strongest = outputs.square().mean(0).argsort(descending=True)[:4].sort().values
    with project_outputs(model, [DATA], ranks=4, layers=["6"], basis="active"):
        projected = model[:7](DATA).detach()
    moving = (projected.std(0) > 1e-6).nonzero().flatten()
    assert torch.equal(moving, strongest)
    torch.testing.assert_close(projected.mean(0), outputs.mean(0), rtol=0, atol=1e-5)
    state = torch.get_rng_state()
    with project_outputs(model, [DATA], ranks=4, layers=["6"], basis="random", seed=1):
        assert int((model[:7](DATA).std(0) > 1e-6).sum()) == 4
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("basis", ["pca", "svcca"])
def test_compressed_layers_compute_the_projection(basis):
    model = network()
    ranks = {"0": 5, "3": 4, "6": 7}
    with project_outputs(model, [DATA], ranks=ranks, basis=basis, layers=list(ranks)):
        expected = [model[:end](DATA).detach() for end in (1, 4, 7, 9)]
    state = torch.get_rng_state()
    undo = compress(model, [DATA], ranks=ranks, basis=basis, layers=list(ranks))
    assert torch.equal(state, torch.get_rng_state())
    assert [len(model[index]) for index in (0, 3, 6)] == [2, 2, 2]
    for end, value in zip((1, 4, 7, 9), expected, strict=True):
        torch.testing.assert_close(model[:end](DATA).detach(), value, rtol=0, atol=1e-4)
    assert undo.layers["3"].rank == 4


def test_parameters_and_flops_are_counted():
    model = network()
    before = sum(p.numel() for p in model.parameters())
    undo = compress(model, [DATA], ranks={"3": 4}, basis="pca", layers=["3"])
    assert undo.parameters_before == before
    assert undo.parameters_after == sum(p.numel() for p in model.parameters())
    # 2×2 output positions, 12·9 inputs: 16 filters before, 4 filters and 16 combinations of them after.
    assert undo.flops_before == 2 * 4 * 16 * 108
    assert undo.flops_after == 2 * 4 * (4 * 108 + 16 * 4)
    assert "1 of 1 layers replaced" in repr(undo)


def test_never_where_it_would_cost_more():
    model = network()
    first, last = model[0], model[8]
    undo = compress(model, [DATA], keep=0.9, basis="pca")
    # 30 → 3 at rank 3 would take 99 weights instead of 90; 18 → 12 at rank 11 takes 330 instead of 216.
    assert model[8] is last
    assert model[0] is first
    assert undo.layers["8"].rank == undo.layers["8"].features == 3
    assert undo.parameters_after <= undo.parameters_before
    assert undo.flops_after <= undo.flops_before


def test_undo_puts_everything_back():
    model = network().train()
    model[1].eval()
    before = copy.deepcopy(model.state_dict())
    modules = list(model)
    undo = compress(model, DATA.split(50), delta=0.8, basis="pca")
    assert list(model) != modules
    assert model[6].training
    undo()
    undo()
    assert list(model) == modules
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    assert not model[1].training


def test_a_shared_layer_is_replaced_wherever_it_is():
    torch.manual_seed(0)
    shared = nn.Linear(20, 20)
    model = nn.Sequential(shared, nn.Tanh(), shared)
    undo = compress(model, [torch.randn(200, 20)], ranks=3, basis="pca")
    assert model[0] is model[2]
    assert isinstance(model[0], nn.Sequential)
    undo()
    assert model[0] is model[2] is shared


def test_precision_and_frozen_weights_stay():
    model = network().double()
    model[6].weight.requires_grad_(False)
    compress(model, [DATA.double()], ranks={"6": 3, "3": 3}, basis="pca", layers=["3", "6"])
    assert model[6][0].weight.dtype == torch.float64
    assert not any(p.requires_grad for p in model[6].parameters())
    assert all(p.requires_grad for p in model[3].parameters())


def test_the_compressed_network_learns():
    model = network().train()
    compress(model, [DATA], keep=0.3, basis="pca")
    model(DATA).square().mean().backward()
    assert all(p.grad is not None for p in model.parameters())


def _enter(*args, **options):
    project_outputs(*args, **options).__enter__()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "one of `ranks`, `delta` and `keep`, got none"),
        ({"ranks": 3, "delta": 0.9}, "one of `ranks`, `delta` and `keep`, got"),
        ({"keep": 1.5}, r"`keep` in \(0, 1\]"),
        ({"delta": 0.0}, r"`delta` in \(0, 1\]"),
        ({"ranks": 0}, "`ranks` of at least 1"),
        ({"ranks": {"7": 3}}, r"`ranks` by names among .* got \['7'\]"),
        ({"ranks": 3, "basis": "fourier"}, "`basis` to be one of"),
        ({"ranks": 3, "layers": ["conv9"]}, "nothing matches 'conv9'"),
    ],
)
@pytest.mark.parametrize("verb", [compress, _enter], ids=["compress", "project"])
def test_bad_arguments(verb, options, message):
    with pytest.raises(ValueError, match=message):
        verb(network(), [DATA], **options)


def test_bad_models():
    with pytest.raises(ValueError, match="at least one batch"):
        compress(network(), [], ranks=2, basis="pca")
    with pytest.raises(ValueError, match="a single layer"):
        compress(nn.Linear(4, 4), [torch.randn(9, 4)], ranks=2, basis="pca")
    with pytest.raises(ValueError, match="`reference` to put out as many rows"):
        compress(network(), [DATA], ranks=2, reference=nn.Sequential(nn.Conv2d(2, 3, 3)), layers=["0"])


class TakesWeights(nn.Module):
    """Takes the weights of a layer rather than call it, as Mamba does."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(20, 30), nn.Linear(30, 2)

    def forward(self, x, *, direct=False):
        h = nn.functional.linear(x, self.first.weight, self.first.bias) if direct else self.first(x)
        return self.second(torch.tanh(h))


def test_what_stands_in_for_a_layer_has_its_weight_and_bias():
    torch.manual_seed(0)
    model, x = TakesWeights(), torch.randn(50, 20)
    compress(model, [x], ranks={"first": 3}, basis="pca", layers=["first"])
    torch.testing.assert_close(model(x, direct=True), model(x))
    assert (model.first.in_features, model.first.out_features) == (20, 30)
    assert torch.linalg.matrix_rank(model.first.weight) == 3
    with pytest.raises(AttributeError, match="nonsense"):
        _ = model.first.nonsense


def test_a_transformer_runs_in_evaluation_mode_where_pytorch_takes_its_weights():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 64, dropout=0.0, batch_first=True)
    model, x = nn.Sequential(layer), torch.randn(8, 5, 16)
    compress(model, [x], ranks={"0.linear1": 4, "0.linear2": 4}, basis="pca", layers=["0.linear1", "0.linear2"])
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(x), model.train()(x))


def test_a_convolution_has_its_weight_too():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Conv2d(3, 20, 3, padding=1), nn.Conv2d(20, 2, 1)), torch.randn(9, 3, 6, 6)
    compress(model, [x], ranks={"0": 2}, basis="pca", layers=["0"])
    thin = model[0]
    torch.testing.assert_close(
        torch.conv2d(x, thin.weight, thin.bias, padding=thin.padding), thin(x), rtol=1e-4, atol=1e-5
    )
