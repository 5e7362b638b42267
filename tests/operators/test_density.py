"""Laws of the eigenvalue histogram: dense truth, identities, splits, seeds, time, and what is refused."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from lightning_saturation.operators.density import _moments, eigenvalue_histogram
from lightning_saturation.operators.krylov import chebyshev_moments, cumulative_counts, jackson_damping
from lightning_saturation.operators.layer_operator import LayerOperator
from lightning_saturation.operators.linear_map import Gram, MatrixOperator, eigen_seconds


def errors(histogram, eigenvalues):
    """L1 distance and largest cumulative difference to NumPy's histogram of the truth, per eigenvalue."""
    truth, _ = np.histogram(np.clip(eigenvalues, 0, float(histogram.edges[-1])), histogram.edges.numpy())
    assert truth.sum() == histogram.size
    difference = histogram.counts.numpy() - truth
    return np.abs(difference).sum() / histogram.size, np.abs(difference.cumsum()).max() / histogram.size


def circular_eigenvalues(layer, size):
    """Eigenvalues of a circularly padded convolution, from one small SVD per frequency (Sedghi et al., 2019)."""
    transform = np.fft.fft2(layer.weight.detach().double().numpy(), (size, size), axes=(2, 3))
    return np.linalg.svd(transform.transpose(2, 3, 0, 1), compute_uv=False).ravel() ** 2


def grouped_eigenvalues(layer, shape):
    """Eigenvalues of a grouped convolution: those of its groups, each by NumPy from its dense matrix."""
    values = []
    for weight in layer.weight.chunk(layer.groups):
        one = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1, bias=False)
        one.weight = nn.Parameter(weight)
        eye = torch.eye(weight.shape[1] * shape[1] * shape[2]).reshape(-1, weight.shape[1], *shape[1:]).double()
        with torch.no_grad():
            matrix = one.double()(eye).flatten(1).numpy()
        values.append(np.linalg.eigvalsh(matrix @ matrix.T))
    return np.concatenate(values)


def random_layer(channels, out, **options):
    torch.manual_seed(0)
    layer = nn.Conv2d(channels, out, 3, padding=1, bias=False, **options)
    nn.init.kaiming_uniform_(layer.weight)
    return layer


def trained_layer(channels, out, **options):
    """A convolution that has learned to tell the digits apart, as far as a second allows."""
    data = pytest.importorskip("sklearn.datasets").load_digits()
    images, labels = torch.tensor(data.images[:, None], dtype=torch.float32) / 16, torch.tensor(data.target)
    torch.manual_seed(0)
    layer = nn.Conv2d(channels, out, 3, padding=1, bias=False, **options)
    stem = nn.Sequential(nn.Conv2d(1, channels, 3, padding=1), nn.ReLU())
    network = nn.Sequential(stem, layer, nn.ReLU(), nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.Linear(4 * out, 10))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for step in range(60):
        chosen = torch.arange(step * 64, step * 64 + 64) % len(images)
        loss = nn.functional.cross_entropy(network(images[chosen]), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 1
    return layer


def spiked_layer(channels, out, strength=1, **options):
    """A random convolution plus one strong smoothing filter between two directions of channels."""
    layer = random_layer(channels, out, **options)
    u, v = torch.randn(out), torch.randn(layer.weight.shape[1])
    with torch.no_grad():
        layer.weight += strength * torch.einsum("o,i->oi", u / u.norm(), v / v.norm())[..., None, None]
    return layer


LAYERS = {"random": random_layer, "trained": trained_layer, "spiked": spiked_layer}


def test_default_budget_against_exact_eigenvalues_beyond_the_exact_path():
    layer, shape = trained_layer(16, 32, groups=2), (16, 17, 17)
    histogram = eigenvalue_histogram(LayerOperator(layer, shape), method="stochastic")  # by itself it takes each group
    assert (histogram.method, histogram.size) == ("stochastic", 4624)
    truth = grouped_eigenvalues(layer, shape)
    distance, cumulative = errors(histogram, truth)
    assert distance <= 0.05
    assert cumulative <= 0.01
    assert histogram.largest == pytest.approx(truth.max(), rel=1e-9)
    assert histogram.spikes.numpy() == pytest.approx(np.sort(truth)[::-1][:32], rel=1e-6)
    assert histogram.cdf_error < 0.01
    assert (histogram.counts >= 0).all()


@pytest.mark.parametrize("kind", LAYERS)
def test_default_budget_against_dense_eigenvalues(kind):
    operator = LayerOperator(LAYERS[kind](8, 16, padding_mode="reflect"), (8, 11, 11))
    matrix = operator.matvec(torch.eye(operator.shape[1], dtype=torch.float64)).numpy()
    truth = np.linalg.svd(matrix, compute_uv=False) ** 2
    exact = eigenvalue_histogram(operator)
    assert exact.method == "exact"
    # An eigenvalue within rounding of an edge may fall on either side of it.
    assert errors(exact, truth)[0] <= 2 / exact.size
    assert exact.trace == pytest.approx(truth.sum(), rel=1e-11)
    assert exact.spectral_norm == pytest.approx(math.sqrt(truth.max()), rel=1e-11)
    assert exact.cdf_error == 0
    stochastic = eigenvalue_histogram(operator, method="stochastic", probes=64, degree=200, bins=25)
    distance, cumulative = errors(stochastic, truth)
    assert distance <= 0.05
    assert cumulative <= 0.01


def test_taking_the_spikes_out_pays():
    """With all spikes deflated the whole degree goes into the bulk."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(600, 1800, generator=generator).double() / 1800**0.5
    left, right = (torch.linalg.qr(torch.randn(n, 5, generator=generator).double()).Q for n in matrix.shape)
    matrix += left * torch.tensor([5.0, 6, 7, 8, 9]) @ right.T
    truth = np.linalg.svd(matrix.numpy(), compute_uv=False) ** 2
    options = {"method": "stochastic", "probes": 20, "degree": 40, "bins": 1000}
    one, all_of_them = (
        errors(eigenvalue_histogram(MatrixOperator(matrix), spikes=k, **options), truth)[1] for k in (1, 6)
    )
    assert all_of_them < 0.015 < one / 3


def test_moments_are_those_of_the_eigenvalues_at_half_the_products():
    values = torch.linspace(-1, 1, 9, dtype=torch.float64)
    calls = []

    def product(x):
        calls.append(len(x))
        return x * values

    moments = torch.cat(list(chebyshev_moments(product, torch.eye(9, dtype=torch.float64), 21)), dim=1)
    expected = torch.cos(values.arccos()[:, None] * torch.arange(22))
    torch.testing.assert_close(moments, expected, rtol=0, atol=1e-12)
    assert len(calls) == 11


def test_damped_counts_never_fall_and_end_at_the_mass():
    points = torch.linspace(-1, 1, 301, dtype=torch.float64)
    moments = torch.cos(torch.tensor([0.3]).double().arccos()[:, None] * torch.arange(150))
    below = cumulative_counts(moments, points)[0]
    assert below.diff().min() >= -1e-12
    assert (float(below[0]), float(below[-1])) == pytest.approx((0, 1))
    assert cumulative_counts(moments, points, damped=False)[0].diff().min() < -1e-3
    assert jackson_damping(10)[0] == pytest.approx(1)


@pytest.mark.parametrize("method", ["exact", "stochastic"])
def test_a_1x1_convolution_has_its_kernel_s_eigenvalues_at_every_position(method):
    layer = nn.Conv2d(80, 96, 1)
    histogram = eigenvalue_histogram(LayerOperator(layer, (80, 5, 7)), method=method, spikes=4, degree=2000, probes=40)
    kernel = np.linalg.svd(layer.weight.detach().double().numpy()[:, :, 0, 0], compute_uv=False) ** 2
    assert (histogram.size, histogram.multiplicity) == (80 * 35, 35)
    assert histogram.spikes.numpy() == pytest.approx(kernel[:4], rel=1e-8)
    assert histogram.counts.sum() == pytest.approx(80 * 35)
    assert histogram.trace == pytest.approx(35 * kernel.sum(), rel=1e-9)
    assert errors(histogram, kernel.repeat(35))[1] <= (2 / 80 if method == "exact" else 0.03)
    assert int(histogram.spike_counts.sum()) == 4 * 35


def test_a_gaussian_layer_follows_marchenko_and_pastur():
    torch.manual_seed(3)
    outputs, inputs = 1200, 4800
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(layer.weight, std=inputs**-0.5)
    budget = {"probes": 10, "degree": 100, "spikes": 8}
    histogram = eigenvalue_histogram(LayerOperator(layer, (inputs,)), method="stochastic", **budget)
    ratio = outputs / inputs
    low, high = (1 - ratio**0.5) ** 2, (1 + ratio**0.5) ** 2
    x = np.linspace(low, high, 20001)
    density = np.sqrt(np.maximum((high - x) * (x - low), 0)) / (2 * np.pi * ratio * x)
    law = np.interp(histogram.edges[1:].numpy(), x, np.cumsum(density) / density.sum())
    assert np.abs(histogram.counts.cumsum(0).numpy() / outputs - law).max() < 0.01
    assert histogram.largest == pytest.approx(high, rel=0.02)
    assert histogram.structural_zeros == inputs - outputs


def test_the_answer_does_not_depend_on_the_block_nor_touch_global_generators():
    operator = LayerOperator(random_layer(4, 6), (4, 9, 9))
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = eigenvalue_histogram(operator, method="stochastic", probes=7, degree=51, block=7, seed=5)
    for block in (1, 3, 100):
        again = eigenvalue_histogram(operator, method="stochastic", probes=7, degree=51, block=block, seed=5)
        torch.testing.assert_close(again.counts, first.counts, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(again.spikes, first.spikes, rtol=1e-10, atol=0)
        assert again.products == first.products
    other = eigenvalue_histogram(operator, method="stochastic", probes=7, degree=51, seed=6)
    assert not torch.allclose(other.counts, first.counts)
    exact = [eigenvalue_histogram(operator, block=block).counts for block in (1, 16, 1000)]
    assert torch.equal(exact[0], exact[1])
    assert torch.equal(exact[0], exact[2])
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpy_state).all()


def test_the_error_estimate_covers_the_error():
    """The spread over probes forecasts the real error of the cumulative counts, where smoothing is small."""
    layer = random_layer(4, 8, padding_mode="circular")
    operator, truth = LayerOperator(layer, (4, 11, 11)), circular_eigenvalues(layer, 11)
    runs = [eigenvalue_histogram(operator, method="stochastic", probes=6, degree=300, seed=s) for s in range(5)]
    real = np.sqrt(np.mean([errors(run, truth)[1] ** 2 for run in runs]))
    said = np.mean([run.cdf_error for run in runs])
    assert 0.4 < real / said < 2.5
    assert math.isnan(eigenvalue_histogram(operator, method="stochastic", probes=1, degree=50).cdf_error)


def test_a_multiple_largest_eigenvalue_breaks_nothing():
    """ARPACK may miss copies of a multiple eigenvalue; they are then counted with the bulk."""
    values = torch.cat([torch.full((300,), 4.0), torch.linspace(0, 1, 300)]).double()
    budget = {"spikes": 5, "probes": 64, "degree": 100}
    histogram = eigenvalue_histogram(MatrixOperator(values.sqrt().diag()), method="stochastic", **budget)
    assert histogram.largest == pytest.approx(4)
    assert float(histogram.counts[200:].sum()) == pytest.approx(300, abs=12)


def test_moments_that_grow_tell_of_an_eigenvalue_above_the_scale():
    """5 % above, they grow a few ten thousand times in 32 moments; at the scale they stay below the zeroth."""
    values = torch.linspace(0, 1, 50, dtype=torch.float64)
    values[-1] = 1.05
    gram = Gram(MatrixOperator(values.sqrt().diag()))
    starts, nothing = torch.ones(2, 50, dtype=torch.float64), torch.zeros(0, 50, dtype=torch.float64)
    assert _moments(gram, starts, nothing, 1.0, 32) is None
    moments, note = _moments(gram, starts, nothing, 1.05, 32)
    assert note == ""
    assert float(moments.abs().max()) == 50


def test_zero_and_tiny_operators():
    zero = eigenvalue_histogram(MatrixOperator(torch.zeros(100, 300).double()), spikes=3, method="stochastic")
    for histogram in (zero, eigenvalue_histogram(MatrixOperator(torch.zeros(100, 300).double()))):
        assert histogram.counts[0] == 100
        assert histogram.counts.sum() == 100
        assert (histogram.stable_rank, histogram.spectral_norm) == (0, 0)
        assert math.isnan(histogram.decay.exponent)
    one = eigenvalue_histogram(MatrixOperator(torch.tensor([[3.0, 4.0]]).double()))
    assert (one.largest, one.size, one.structural_zeros) == (25, 1, 1)


def test_out_of_time_says_what_was_done():
    operator = LayerOperator(random_layer(8, 16), (8, 12, 12))
    counted = []
    slow = eigenvalue_histogram(operator, method="stochastic", degree=100, probes=4, progress=counted.append)
    assert sum(counted) == slow.products >= 4 * 50
    with pytest.raises(TimeoutError, match="Out of time during ARPACK"):
        eigenvalue_histogram(operator, method="stochastic", seconds=1e-9)
    with pytest.raises(TimeoutError, match="of 1152 rows"):
        eigenvalue_histogram(operator, method="exact", seconds=1e-9)


def test_time_that_runs_out_in_the_bulk_lowers_the_degree(monkeypatch):
    operator = LayerOperator(random_layer(8, 16), (8, 12, 12))
    clock = iter(range(10**9))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    free = eigenvalue_histogram(operator, method="stochastic", probes=2, degree=400, block=2, spikes=4)
    arpack = free.products - 2 * 201
    short = eigenvalue_histogram(
        operator, method="stochastic", probes=2, degree=400, block=2, spikes=4, seconds=arpack + 60.0
    )
    assert 60 < short.degree < 200
    assert short.note == f"out of time: degree {short.degree} of 400"
    assert short.resolution > free.resolution
    with pytest.raises(TimeoutError, match="moments"):
        eigenvalue_histogram(
            operator, method="stochastic", probes=2, degree=400, block=2, spikes=4, seconds=arpack + 5.0
        )


class Poisoned(MatrixOperator):
    def rmatvec(self, y):
        return super().rmatvec(y) * float("nan")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bins": 0}, "`bins` of at least 1, got 0"),
        ({"degree": 1}, "`degree` of at least 2"),
        ({"probes": 0}, "`probes`"),
        ({"spikes": -1}, "`spikes`"),
        ({"block": 0}, "`block`"),
        ({"seconds": 0.0}, "`seconds` > 0"),
        ({"method": "magic"}, "got 'magic'"),
        ({"method": "stochastic", "spikes": 15}, "`spikes` below half the size 30"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        eigenvalue_histogram(MatrixOperator(torch.eye(30).double()), **options)


def test_a_third_of_the_size_in_spikes_leaves_a_bulk():
    operator = MatrixOperator(torch.randn(30, 40, generator=torch.Generator().manual_seed(0)).double())
    options = {"method": "stochastic", "probes": 2, "degree": 20}
    assert len(eigenvalue_histogram(operator, spikes=14, **options).spikes) == 14


def test_zeros_that_come_out_below_zero_are_counted_as_zeros():
    left, right = torch.randn(2, 60, 5, generator=torch.Generator().manual_seed(0)).double()
    found = eigenvalue_histogram(MatrixOperator(left @ right.T))
    assert found.method == "exact"
    assert int(found.counts.sum()) == 60
    assert int(found.counts[0]) >= 55


def test_products_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="finite products"):
        eigenvalue_histogram(Poisoned(torch.eye(30).double()))


def test_a_forecast_beyond_the_time_takes_the_path_that_can_stop(monkeypatch):
    monkeypatch.setattr(Gram, "exact_seconds", lambda self: 100.5)
    operator = LayerOperator(random_layer(4, 6), (4, 9, 9))
    found = eigenvalue_histogram(operator, seconds=100.0, probes=2, degree=40)
    assert found.method == "stochastic"
    assert found.note == "the exact path would outlast the time"
    assert found.exact_trace
    assert eigenvalue_histogram(operator, probes=2, degree=40).method == "exact"
    small = LayerOperator(random_layer(1, 2), (1, 5, 5))  # as many spikes would be all there is
    assert eigenvalue_histogram(small, seconds=100.0).method == "exact"


class WithoutTrace(MatrixOperator):
    def trace(self):
        return None


def test_a_trace_that_the_operator_does_not_know_is_estimated():
    matrix = torch.randn(300, 200, generator=torch.Generator().manual_seed(0)).double()
    exact = eigenvalue_histogram(WithoutTrace(matrix))
    found = eigenvalue_histogram(WithoutTrace(matrix), method="stochastic", probes=64)
    truth = float(matrix.square().sum())
    assert (exact.exact_trace, found.exact_trace) == (False, False)
    assert exact.trace == pytest.approx(truth, rel=1e-12)
    assert found.trace == pytest.approx(truth, rel=0.02)
    assert eigenvalue_histogram(MatrixOperator(matrix)).exact_trace


def test_what_is_not_asked_for_is_what_the_documentation_says():
    operator = MatrixOperator(torch.randn(300, 200, generator=torch.Generator().manual_seed(0)).double())
    found = eigenvalue_histogram(operator, method="stochastic", probes=2)
    assert (len(found.counts), len(found.spikes), found.degree) == (250, 32, 400)
    assert torch.equal(found.counts, eigenvalue_histogram(operator, method="stochastic", probes=2, seed=0).counts)
    assert eigenvalue_histogram(operator, method="stochastic", degree=2).probes == 1000  # 200,000 / 200


def test_a_circular_convolution_is_solved_by_frequency_while_there_is_time(monkeypatch):
    operator = LayerOperator(random_layer(3, 4, padding_mode="circular"), (3, 6, 6))
    for seconds in (None, 100.0):
        found = eigenvalue_histogram(operator, seconds=seconds)
        assert (found.method, found.note, found.products) == ("exact", "", 0)
    monkeypatch.setattr("lightning_saturation.operators.density.eigen_seconds", lambda work: 1e6)
    found = eigenvalue_histogram(operator, seconds=100.0, spikes=4, probes=2, degree=10)
    assert (found.method, found.note) == ("stochastic", "the exact path would outlast the time")


def test_an_eigenproblem_takes_three_times_its_share_of_a_small_one(monkeypatch):
    clock = iter([5.0, 5.5])
    monkeypatch.setattr("lightning_saturation.operators.linear_map.time.monotonic", lambda: next(clock))
    assert eigen_seconds(2 * 256**3) == 3 * 0.5 * 2


@pytest.mark.parametrize(("outputs", "method"), [(79, "exact"), (80, "exact"), (81, "stochastic")])
def test_the_exact_path_ends_at_its_size(outputs, method, monkeypatch):
    monkeypatch.setattr("lightning_saturation.operators.density.EXACT_SIZE", 80)
    operator = MatrixOperator(torch.eye(outputs).double())
    assert eigenvalue_histogram(operator, spikes=4, probes=2, degree=10).method == method


def test_one_product_that_is_not_finite_is_refused_in_the_bulk():
    gram = Gram(MatrixOperator(torch.eye(30).double()), block=4)
    starts = torch.stack([gram.probe(0, index) for index in range(3)])
    starts[1, 5] = math.inf
    with pytest.raises(ValueError, match="finite products"):
        _moments(gram, starts, torch.zeros(0, 30).double(), 1.0, 8)
