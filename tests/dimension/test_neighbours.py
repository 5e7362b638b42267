"""The two nearest distances, against brute force in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_saturation.dimension import neighbours
from lightning_saturation.dimension.neighbours import merge_nearest, two_nearest


def brute_force(queries: Tensor, points: Tensor | None = None) -> Tensor:
    others = queries if points is None else points
    distances = torch.cdist(queries.double(), others.double(), compute_mode="donot_use_mm_for_euclid_dist")
    if points is None:
        distances.fill_diagonal_(torch.inf)
    return distances.topk(2, dim=1, largest=False).values


def draw(shape: tuple[int, int], seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def clusters(spread: float, dtype: torch.dtype) -> Tensor:
    """Ten far-apart clouds, the picture of a last layer: the norms say nothing about the distances."""
    which = torch.randint(10, (400,), generator=torch.Generator().manual_seed(1))
    return 10 * draw((10, 40), 2, dtype)[which] + spread * draw((400, 40), 3, dtype)


CASES = {
    "plain": draw((400, 30)),
    "offset": draw((400, 30)) + 1e4,
    "offset of one feature": torch.cat([draw((400, 5)), torch.full((400, 1), 1e6)], dim=1),
    "clusters": clusters(1e-2, torch.float32),
    "tight clusters": clusters(1e-7, torch.float64),
    "lattice": torch.randint(0, 3, (400, 6), generator=torch.Generator().manual_seed(4)).float(),
    "duplicates": draw((100, 8)).repeat(4, 1),
    "sparse": torch.relu(draw((400, 10)) - 1.5),
    "outlier": torch.cat([draw((400, 8)), torch.full((1, 8), 1e30)]),
    "tiny": draw((400, 8)) * 1e-30,
    "huge": draw((400, 8), dtype=torch.float64) * 1e200,
    "wide": draw((60, 5000)),
    "one feature": draw((400, 1)),
    "half": draw((400, 20)).bfloat16(),
    "equal": torch.ones(20, 3),
}


@pytest.mark.parametrize("name", CASES)
def test_equals_brute_force(name: str) -> None:
    x = CASES[name]
    queries, points = x[: len(x) // 8], x[len(x) // 8 :]
    torch.testing.assert_close(two_nearest(x), brute_force(x), rtol=1e-9, atol=0)
    torch.testing.assert_close(two_nearest(queries, points), brute_force(queries, points), rtol=1e-9, atol=0)


def test_an_offset_makes_no_false_duplicates() -> None:
    # The textbook |a|² + |b|² − 2ab in float32, which this test would catch, gives hundreds of zeros here.
    x = draw((500, 20)) + 1e4
    assert (two_nearest(x)[:, 0] > 1).all()


def test_every_stage_of_the_search_alone_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    x = clusters(1e-3, torch.float32)
    for types in ((torch.float32,), (torch.float64,), ()):
        monkeypatch.setattr(neighbours, "_search_types", lambda types=types: types)
        torch.testing.assert_close(two_nearest(x), brute_force(x), rtol=1e-9, atol=0)


def test_small_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x = draw((300, 12))
    whole = two_nearest(x)
    monkeypatch.setattr(neighbours, "_BLOCK", 1000)
    monkeypatch.setattr(neighbours, "_PASS", 100)
    torch.testing.assert_close(two_nearest(x), whole, rtol=1e-14, atol=0)


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_fast_matrix_products_are_not_trusted(precision: str) -> None:
    before = torch.get_float32_matmul_precision()
    x = draw((600, 512)) + 3
    try:
        torch.set_float32_matmul_precision(precision)
        found = two_nearest(x)
    finally:
        torch.set_float32_matmul_precision(before)
    torch.testing.assert_close(found, brute_force(x), rtol=1e-9, atol=0)


def test_autocast_and_inference_mode_change_nothing() -> None:
    x = draw((300, 64))
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = two_nearest(x.clone())
    torch.testing.assert_close(found, brute_force(x), rtol=1e-9, atol=0)


def test_missing_neighbours_are_infinitely_far() -> None:
    assert two_nearest(torch.zeros(1, 3)).isinf().all()
    two = two_nearest(torch.tensor([[0.0], [3.0]]))
    assert two.tolist() == [[3.0, torch.inf], [3.0, torch.inf]]
    assert two_nearest(torch.zeros(2, 3), torch.zeros(0, 3)).isinf().all()
    assert two_nearest(torch.zeros(0, 3), torch.zeros(4, 3)).shape == (0, 2)
    assert two_nearest(torch.zeros(0, 3)).shape == (0, 2)


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(2, 40),
    features=st.integers(1, 6),
    cut=st.integers(0, 40),
    levels=st.integers(2, 50),
    seed=st.integers(0, 10**6),
)
def test_parts_merge_to_the_whole(rows: int, features: int, cut: int, levels: int, seed: int) -> None:
    # Few levels make many ties and duplicates, which are where a top-2 goes wrong.
    generator = torch.Generator().manual_seed(seed)
    queries = torch.randint(levels, (5, features), generator=generator).float()
    points = torch.randint(levels, (rows, features), generator=generator).float()
    merged = merge_nearest(two_nearest(queries, points[:cut]), two_nearest(queries, points[cut:]))
    torch.testing.assert_close(merged, brute_force(queries, points), rtol=1e-9, atol=0)


def test_near_ties_that_rounding_hides_are_measured_again() -> None:
    """Second and third neighbours as near to each other as float32 products can tell: no slack is left to err in.

    Two clouds far apart: products round by a thousandth of the distances inside a cloud, less than the bounds give way.
    """
    x = draw((4000, 5)) @ draw((5, 12), 1)
    x[:2000] += 40
    truth = brute_force(x)
    third = torch.cdist(x.double(), x.double()).fill_diagonal_(torch.inf).topk(3, dim=1, largest=False).values[:, 2]
    assert ((third / truth[:, 1]).square() < 1 + 1e-3).sum() > 20
    torch.testing.assert_close(two_nearest(x), truth, rtol=1e-9, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("features", [1, 40, 5000])
def test_norms_pay_for_the_worst_rounding_of_a_product(dtype: torch.dtype, features: int) -> None:
    """Higham's constant for n products and as many sums, three roundings more, and what underflows altogether."""
    rows = draw((6, features), 5, torch.float64)
    rows[3] = 0
    shadow = neighbours._shadow(rows, torch.zeros(features).double(), torch.tensor(1.0).double(), dtype)
    kind = torch.finfo(dtype)
    unit = (features + 3) * kind.eps / 2
    paid = 0.5 * rows.square().sum(1) - shadow[:, -1].double()
    assert (paid >= 0.5 * rows.square().sum(1) * unit / (1 - unit)).all()
    assert paid[3] >= features * kind.tiny


@pytest.mark.parametrize(
    ("precision", "types"), [("highest", (torch.float32, torch.float64)), ("high", (torch.float64,))]
)
def test_float32_is_searched_only_where_products_keep_its_digits(
    precision: str, types: tuple[torch.dtype, ...]
) -> None:
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(precision)
        assert neighbours._search_types() == types
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("name", ["plain", "offset", "tiny", "huge", "lattice", "equal", "half"])
def test_products_settle_what_they_can_and_differences_to_all_points_are_rare(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the origin and the scale: only the ties of a lattice are beyond the float32 products' digits."""
    left, search = [], neighbours._search

    def counted(*arguments: object) -> Tensor:
        pending = search(*arguments)  # type: ignore[arg-type]
        left.append(len(pending))
        return pending

    monkeypatch.setattr(neighbours, "_search", counted)
    two_nearest(CASES[name])
    assert left[0] == 0 or name == "lattice"
    assert left[-1] == 0


def test_the_nearest_are_named_and_missing_ones_are_not() -> None:
    x = torch.tensor([[0.0], [5.0], [1.0], [7.0]])
    nearest, which = neighbours.find_two_nearest(x)
    assert which.tolist() == [[2, 1], [3, 2], [0, 1], [1, 2]]
    assert nearest.tolist() == [[1.0, 5.0], [2.0, 4.0], [1.0, 4.0], [2.0, 6.0]]
    assert neighbours.find_two_nearest(x[:2])[1].tolist() == [[1, -1], [0, -1]]
    assert neighbours.find_two_nearest(x, x[:1])[1].tolist() == [[0, -1]] * 4
