from __future__ import annotations

from itertools import combinations

import pytest

from lightning_saturation.drawing import canvas
from lightning_saturation.drawing.point_names import name_points

CLUSTER = [(0.50, 0.50), (0.52, 0.50), (0.50, 0.51), (0.9, 0.9), (0.02, 0.02)]


@pytest.fixture
def drawn():
    figure = canvas.new_figure(6, 4)
    axes = figure.subplots()
    xs, ys = zip(*CLUSTER, strict=True)
    axes.plot(xs, ys, "o", ms=5)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    name_points(figure, axes, xs, ys, [f"network {i}" for i in range(len(CLUSTER))])
    figure.draw_without_rendering()
    return axes


def test_names_hide_neither_each_other_nor_a_point_and_stay_inside(drawn):
    boxes = [text.get_window_extent() for text in drawn.texts]
    assert [text.get_text() for text in drawn.texts] == [f"network {i}" for i in range(5)]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    for x, y in drawn.transData.transform(CLUSTER):
        assert not any(box.contains(x, y) for box in boxes)
    assert all(drawn.bbox.containsx(edge) for box in boxes for edge in (box.x0, box.x1))


def test_a_name_stays_near_its_point(drawn):
    for text, (x, y) in zip(drawn.texts, drawn.transData.transform(CLUSTER), strict=True):
        box = text.get_window_extent()
        nearest = min(max(x, box.x0), box.x1), min(max(y, box.y0), box.y1)
        assert abs(nearest[0] - x) < 10
        assert abs(nearest[1] - y) < 10


def test_nothing_to_name():
    figure = canvas.new_figure(2, 2)
    name_points(figure, figure.subplots(), [], [], [])
