"""Laws of layers as operators: adjoint, linearity, the layer itself, exact traces, SciPy's view."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lightning_saturation.operators.layer_operator import LayerOperator, MatrixOperator

KINDS = {1: (nn.Conv1d, nn.ConvTranspose1d), 2: (nn.Conv2d, nn.ConvTranspose2d), 3: (nn.Conv3d, nn.ConvTranspose3d)}


@st.composite
def layers(draw, modes=("zeros", "circular", "reflect", "replicate")):
    """Any convolution with any option, or a linear layer, and an input shape that it accepts."""
    torch.manual_seed(draw(st.integers(0, 1000)))
    dims = draw(st.integers(0, 3))
    if dims == 0:
        features, out = draw(st.integers(1, 5)), draw(st.integers(1, 5))
        return nn.Linear(features, out), (*draw(st.lists(st.integers(1, 3), max_size=2)), features)
    groups = draw(st.integers(1, 2))
    channels, out = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))

    def each(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(dims))

    kernel, stride, dilation = each(1, 3), each(1, 3), each(1, 2)
    sizes = each(4, 6 if dims < 3 else 5)
    if draw(st.booleans()):
        extra = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
        layer = KINDS[dims][1](
            channels, out, kernel, stride, each(0, 1), output_padding=extra, groups=groups, dilation=dilation
        )
        return layer, (channels, *sizes)
    padding = draw(st.sampled_from(["same", "valid", None]))
    stride = (1,) * dims if padding == "same" else stride
    mode = draw(st.sampled_from(modes))
    layer = KINDS[dims][0](
        channels, out, kernel, stride, padding or each(0, 3), dilation, groups=groups, padding_mode=mode
    )
    return layer, (channels, *sizes)


def as_double(layer):
    layer = layer.double()
    layer.bias = None
    return layer


def output_exists(layer, shape):
    with torch.no_grad():
        try:
            return as_double(layer)(torch.zeros(1, *shape, dtype=torch.float64)).numel() > 0
        except RuntimeError:
            return False


def dense(operator):
    return operator.matvec(torch.eye(operator.shape[1], dtype=torch.float64)).T


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@settings(max_examples=150, deadline=None)
@given(layers(), st.integers(0, 100))
def test_products_are_the_layer_and_its_adjoint(case, seed):
    layer, shape = case
    if not output_exists(layer, shape):
        with pytest.raises(ValueError, match="input_shape"):
            LayerOperator(layer, shape)
        return
    operator = LayerOperator(layer, shape)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(3, operator.shape[1], dtype=torch.float64, generator=generator)
    y = torch.randn(3, operator.shape[0], dtype=torch.float64, generator=generator)
    with torch.no_grad():
        expected = layer(x.reshape(3, *shape))
    assert operator.output_shape == tuple(expected.shape[1:])
    torch.testing.assert_close(operator.matvec(x), expected.reshape(3, -1), rtol=1e-12, atol=1e-12)
    left, right = (operator.matvec(x) * y).sum(), (x * operator.rmatvec(y)).sum()
    torch.testing.assert_close(left, right, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(operator.rmatvec(y)[1], operator.rmatvec(y[1]), rtol=1e-12, atol=1e-12)
    matrix = dense(operator)
    assert operator.trace() == pytest.approx(float(matrix.square().sum()), rel=1e-11, abs=1e-12)


def test_trace_of_a_3x3_convolution_is_the_published_formula():
    layer = nn.Conv2d(3, 5, 3, padding=1, bias=False)
    height, width, squares = 7, 6, layer.weight.detach().double().square().sum((0, 1))
    formula = sum(
        float(squares[a, b]) * (height - abs(a - 1)) * (width - abs(b - 1))
        for a, b in itertools.product(range(3), repeat=2)
    )
    assert LayerOperator(layer, (3, height, width)).trace() == pytest.approx(formula, rel=1e-12)


@pytest.mark.parametrize(
    ("layer", "shape", "times"),
    [
        (nn.Conv2d(6, 4, 1, groups=2), (6, 3, 5), 15),
        (nn.ConvTranspose2d(6, 4, 1, groups=2), (6, 3, 5), 15),
        (nn.Linear(4, 6), (2, 3, 4), 6),
        (nn.Conv2d(2, 3, 3, padding=1), (2, 4, 4), 1),
        (nn.Conv2d(2, 3, 1, stride=2), (2, 4, 4), 1),
    ],
)
def test_the_factor_repeated_has_the_singular_values_of_the_whole(layer, shape, times):
    operator = LayerOperator(layer, shape)
    factor, found = operator.factor()
    assert found == times
    values = torch.linalg.svdvals(dense(factor)).repeat_interleave(times)
    whole = torch.linalg.svdvals(dense(operator))
    torch.testing.assert_close(values.sort(descending=True).values[: len(whole)], whole)


def test_scipy_sees_the_same_operator():
    from scipy.sparse import linalg

    layer = nn.Conv2d(2, 3, 3, stride=2, padding=1)
    operator = LayerOperator(layer, (2, 6, 5))
    matrix = dense(operator).numpy()
    scipy = operator.to_scipy()
    assert isinstance(scipy, linalg.LinearOperator)
    columns = torch.randn(operator.shape[1], 4, dtype=torch.float64).numpy()
    assert scipy @ columns == pytest.approx(matrix @ columns)
    assert scipy.H @ (matrix @ columns)[:, 0] == pytest.approx(matrix.T @ matrix @ columns[:, 0])
    assert linalg.svds(scipy, k=1, return_singular_vectors=False, random_state=0)[0] == pytest.approx(
        float(torch.linalg.svdvals(torch.as_tensor(matrix))[0])
    )


def test_the_weight_is_a_copy_and_autocast_does_not_reach_the_products():
    layer = nn.Linear(3, 2).double()
    before = layer.weight.detach().clone()
    operator = LayerOperator(layer, (3,))
    with torch.no_grad():
        layer.weight.zero_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        product = operator.matvec(torch.eye(3))
    assert product.dtype == torch.float64
    torch.testing.assert_close(product.T, before, rtol=0, atol=0)
    assert not operator.matvec(torch.ones(3, requires_grad=True)).requires_grad


def test_a_parametrised_layer_is_what_it_computes():
    layer = nn.utils.parametrizations.spectral_norm(nn.Linear(6, 5), n_power_iterations=50)
    layer(torch.zeros(1, 6))
    layer.eval()
    norm = torch.linalg.svdvals(dense(LayerOperator(layer, (6,))))[0]
    assert float(norm) == pytest.approx(1, abs=1e-3)


def test_a_matrix_is_an_operator():
    matrix = torch.arange(6.0).reshape(2, 3)
    operator = MatrixOperator(matrix)
    assert operator.shape == (2, 3)
    assert operator.trace() == 55
    assert torch.equal(operator.matvec(torch.ones(3)), matrix.sum(1))
    assert torch.equal(operator.rmatvec(torch.ones(1, 2)), matrix.sum(0)[None])


def broken():
    layer = nn.Linear(2, 2)
    nn.init.constant_(layer.weight, float("nan"))
    return layer


@pytest.mark.parametrize(
    ("layer", "shape", "error", "message"),
    [
        (nn.ReLU(), (3,), TypeError, "one of Linear, Conv1d.*got ReLU"),
        (nn.Linear(3, 2), (4,), ValueError, r"3 of them.*got \(4,\)"),
        (nn.Linear(3, 2), (), ValueError, "input_shape"),
        (nn.Conv2d(3, 2, 3), (3, 8), ValueError, r"\(channels, \*spatial\) with 3"),
        (nn.Conv2d(3, 2, 3), (2, 8, 8), ValueError, "with 3 of them"),
        (nn.Conv2d(3, 2, 3), (3, 2, 8), ValueError, r"has an output, got spatial size \(2, 8\)"),
        (nn.Conv2d(3, 2, 3, padding=4, padding_mode="reflect"), (3, 4, 8), ValueError, "wider than the padding"),
        (nn.LazyLinear(3), (3,), ValueError, "has not run yet"),
        (broken(), (2,), ValueError, "NaN or infinity in the weight"),
    ],
)
@pytest.mark.filterwarnings("ignore:Lazy modules:UserWarning")
def test_what_is_no_operator_is_refused(layer, shape, error, message):
    with pytest.raises(error, match=message):
        LayerOperator(layer, shape)


@pytest.mark.parametrize("x", [torch.ones(4), torch.ones(2, 4), torch.ones(1, 1, 3)])
def test_vectors_of_another_size_are_refused(x):
    with pytest.raises(ValueError, match=r"`x` \(3,\) or \(vectors, 3\)"):
        LayerOperator(nn.Linear(3, 2), (3,)).matvec(x)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_blocks_are_the_groups(groups):
    operator = LayerOperator(nn.Conv2d(4, 8, 3, padding=1, groups=groups), (4, 5, 5))
    blocks = operator.blocks()
    assert [block.shape for block in blocks] == [(200 // groups, 100 // groups)] * groups
    x = torch.arange(100).double()
    parts = [block.matvec(part) for block, part in zip(blocks, x.chunk(groups), strict=True)]
    torch.testing.assert_close(torch.cat(parts), operator.matvec(x), rtol=1e-12, atol=1e-12)
