"""Windows that take some of the rows, sketch them, or keep them elsewhere."""

import numpy as np
import pytest
import torch
from torch import nn

from lightning_saturation import measure_saturation
from lightning_saturation.capture.select import CaptureOptions
from lightning_saturation.covariance.accumulation import LEAST_ROWS, Accumulation, accumulation
from lightning_saturation.saturation.window import Window, saturation_tracker


def correlated(n, d=12, seed=0, offset=50.0):
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((d, d)) * 0.6 ** np.arange(d)
    return torch.from_numpy(rng.standard_normal((n, d)) @ mixing.T + offset)


def window_of(parts, kept, batches=None):
    window = Window(["a"], kept)
    window.batches = batches
    for part in parts:
        window.add("a", part)
    return window


def measured(parts, kept, batches=None):
    return window_of(parts, kept, batches).statistics(delta=0.99)["a"]


def close_to(statistics, rows, rtol=1e-9):
    exact = np.linalg.eigvalsh(np.cov(rows.numpy().T))[::-1]
    np.testing.assert_allclose(statistics.eigenvalues.numpy(), exact, rtol=rtol, atol=1e-12 * exact[0])


def test_within_the_budget_nothing_changes():
    rows = correlated(500)
    assert measured(rows.split(50), Accumulation(max_samples=500)) == measured(rows.split(50), Accumulation())


@pytest.mark.parametrize("batches", [100, None])
def test_a_budget_holds_whether_or_not_the_length_is_known(batches):
    rows = correlated(100_000)
    statistics = measured(rows.split(1000), Accumulation(max_samples=2000), batches)
    assert 1000 <= statistics.samples <= 2000
    close_to(statistics, rows, rtol=0.15)


def test_with_a_known_length_the_rows_are_those_of_a_fixed_stride():
    from lightning_saturation.covariance.thinning import take, thinning

    rows = correlated(9_000)
    picked = take(thinning(1000, expected=9000), 9000)[1]
    statistics = measured(rows.split(100), Accumulation(max_samples=1000), 90)
    assert statistics.samples == 1000
    close_to(statistics, rows[picked])
    assert statistics.total_variance == pytest.approx(float(rows[picked].var(0).sum()))


def test_the_end_of_a_window_of_unknown_length_counts_as_much_as_its_beginning():
    """Thinning that forgot its weights would hear mostly the beginning, whose rows vary along another direction."""
    early, late = torch.randn(50_000, 2), torch.randn(50_000, 2)
    early[:, 1], late[:, 0] = 0.0, 0.0
    statistics = measured([*early.split(500), *late.split(500)], Accumulation(max_samples=1000))
    assert statistics.participation_ratio == pytest.approx(2.0, rel=0.02)


def test_a_second_window_expects_as_many_rows_as_the_first_had():
    window = Window(["a"], Accumulation(max_samples=1000))
    rows = correlated(9_000)
    for _ in range(2):
        window.reset()
        for part in rows.split(100):
            window.add("a", part)
    assert window.statistics(delta=0.99)["a"].samples == 1000


def test_views_of_positions_give_what_their_rows_give():
    maps = torch.randn(64, 5, 6, 7, dtype=torch.float64)
    view = maps.movedim(1, -1).flatten(1, -2)
    rows = view.reshape(-1, 5)
    assert measured(view.split(10), Accumulation()).samples == len(rows)
    close_to(measured(view.split(10), Accumulation()), rows)
    for budget in (100, 1000):
        kept = Accumulation(max_samples=budget)
        assert measured(view.split(8), kept, 8) == measured(rows.split(8 * 42), kept, 8)


def test_statistics_in_the_middle_of_a_window_do_not_disturb_it():
    rows = correlated(3_000)
    window = Window(["a"], Accumulation(max_samples=300))
    window.batches = 30
    for part in rows.split(100):
        window.add("a", part)
        window.statistics(delta=0.99)
    often = window.statistics(delta=0.99)["a"]
    once = measured(rows.split(100), Accumulation(max_samples=300), 30)
    assert often.samples == once.samples == 300
    torch.testing.assert_close(often.eigenvalues, once.eigenvalues)


@pytest.mark.parametrize("budget", [None, 400])
def test_a_sketched_layer_brackets_the_exact_saturation(budget):
    rows = correlated(2_000, d=200)
    exact = measured(rows.split(64), Accumulation("exact", budget), 32)
    sketched = measured(rows.split(64), Accumulation("sketch", budget), 32)
    assert sketched.samples == exact.samples
    assert sketched.saturation_lower <= exact.saturation <= sketched.saturation_upper
    assert sketched.saturation_lower <= sketched.saturation <= sketched.saturation_upper
    assert sketched.total_variance == pytest.approx(exact.total_variance)
    assert sketched.effective_rank == pytest.approx(exact.effective_rank, rel=0.05)
    assert exact.saturation_lower == exact.saturation == exact.saturation_upper


def test_only_wide_layers_are_sketched_by_default():
    assert not accumulation().sketches(4096)
    assert accumulation().sketches(4097)
    assert accumulation(covariance="sketch").sketches(2)
    assert not accumulation(covariance="exact").sketches(10**6)


def test_a_wide_layer_is_sketched_in_little_memory():
    window = window_of(torch.randn(300, 8_192).split(100), Accumulation())
    buffer = window._kept["a"]
    held = [*buffer._sums, buffer._rows]
    assert sum(t.numel() * t.element_size() for t in held) * 20 <= 8_192**2 * 8
    statistics = window.statistics(delta=0.99)["a"]
    assert statistics.samples == 300
    assert statistics.saturation_lower <= statistics.saturation <= statistics.saturation_upper


def test_rows_can_be_accumulated_on_another_device():
    rows = correlated(500)
    assert measured(rows.split(50), Accumulation(state_device=torch.device("cpu"))) == measured(
        rows.split(50), Accumulation()
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kept", [Accumulation(), Accumulation(state_device=torch.device("cpu"))])
def test_rows_of_a_gpu_give_what_rows_of_the_cpu_give(kept):
    rows = correlated(5_000)
    statistics = measured([part.cuda() for part in rows.split(50)], kept)
    close_to(statistics, rows)


def test_defaults_depend_on_the_pooling():
    assert accumulation(pooling="mean").budget(64) is None
    assert accumulation(pooling="positions").budget(64) == LEAST_ROWS
    assert accumulation(pooling="positions").budget(4096) == 16 * 4096
    assert accumulation(pooling="positions", max_samples=None).budget(64) is None
    assert accumulation(max_samples=7).budget(64) == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"covariance": "approximate"}, r"`covariance` to be one of \('exact', 'sketch', 'auto'\), got 'approximate'"),
        ({"max_samples": 1}, r"`max_samples` to be 'auto', None or at least 2 rows, got 1"),
        ({"max_samples": True}, r"`max_samples` to be 'auto', None or at least 2 rows, got True"),
        ({"max_samples": "all"}, r"`max_samples` to be 'auto', None or at least 2 rows, got 'all'"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        measure_saturation(nn.Linear(2, 2), [torch.ones(4, 2)], progress=False, **arguments)


def test_a_measured_convolution_takes_positions_within_its_budget():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, padding=1))
    batches = [torch.randn(16, 3, 12, 12) for _ in range(10)]
    everything = measure_saturation(model, batches, pooling="positions", max_samples=None, progress=False)
    some = measure_saturation(model, batches, pooling="positions", progress=False)
    unknown = measure_saturation(model, iter(batches), pooling="positions", progress=False)
    assert everything.layers["0"].samples == 10 * 16 * 144
    for report in (some, unknown):
        for name, layer in report.layers.items():
            assert LEAST_ROWS / 2 <= layer.samples <= LEAST_ROWS
            assert layer.continuous_saturation == pytest.approx(everything.layers[name].continuous_saturation, abs=0.02)


@pytest.mark.parametrize("budget", [None, 300])
@pytest.mark.usefixtures("unchecked_pooling")
def test_a_compiled_model_hands_over_the_same_positions(budget):
    def measured_by(wrap):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3))
        kept = Accumulation(max_samples=budget)
        tracker = saturation_tracker(net, CaptureOptions(pooling="positions"), stages=["train"], kept=kept)
        tracker.attach()
        tracker.record("train")
        forward = wrap(net)
        generator = torch.Generator().manual_seed(1)
        for _ in range(3):
            forward(torch.randn(4, 3, 16, 16, generator=generator)).sum().backward()
        tracker.detach()
        return tracker.windows["train"].statistics(delta=0.99)

    compiled = measured_by(lambda net: torch.compile(net, backend="aot_eager", fullgraph=True))
    eager = measured_by(lambda net: net)
    for name, layer in eager.items():
        assert compiled[name].samples == layer.samples
        torch.testing.assert_close(compiled[name].eigenvalues, layer.eigenvalues, rtol=1e-4, atol=1e-8)
