"""Float32 products that keep their digits where float64 is slow."""

import numpy as np
import pytest
import torch

from lightning_saturation.covariance.moments import (
    add_rows,
    covariance,
    empty_sums,
    from_sums,
    single_products,
    slow_double,
)


def rows(n=3000, d=24, offset=0.0):
    rng = np.random.default_rng(0)
    return torch.from_numpy(
        rng.standard_normal((n, d)) @ (rng.standard_normal((d, d)) * 0.7 ** np.arange(d)).T + offset
    )


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_products_of_shifted_rows_keep_six_digits_at_any_offset(offset):
    x = rows(offset=offset)
    sums = empty_sums(24)
    for part in x.split(500):
        add_rows(sums, part, single=True)
    exact = np.cov(x.numpy().T)
    error = np.abs(covariance(from_sums(sums)).numpy() - exact).max() / np.abs(exact).max()
    assert 0 < error < 1e-6  # not float64 in disguise


def test_leading_bits_are_exact_in_ten_bit_products():
    """What TF32 does to its inputs, done by hand, leaves the result within float32's own error."""
    x = rows(1000).float()

    def ten_bits(values):
        return (values.view(torch.int32) + 0x1000 & ~0x1FFF).view(torch.float32)

    high = x.bfloat16().float()
    assert torch.equal(ten_bits(high), high)
    low = ten_bits(x - high)
    split = (high.T @ high).double() + (high.T @ low).double() * 1
    split = split + (high.T @ low).double().T + (low.T @ low).double()
    exact = x.double().T @ x.double()
    plain = ten_bits(x).double().T @ ten_bits(x).double()
    assert (split - exact).abs().max() < (plain - exact).abs().max() / 20
    assert (single_products(x) - exact).abs().max() < 1e-6 * exact.abs().max()


def test_autocast_does_not_reach_the_products():
    x = rows(1000).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = single_products(x)
    assert torch.equal(inside, single_products(x))


def test_the_cpu_has_fast_float64(monkeypatch):
    assert not slow_double(torch.device("cpu"))
    monkeypatch.setattr(torch.version, "hip", None)
    for capability, slow in (((8, 0), False), ((9, 0), False), ((8, 6), True), ((8, 9), True), ((7, 5), True)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, c=capability: c)
        assert slow_double(torch.device("cuda", 0)) is slow
