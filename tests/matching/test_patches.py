"""Patches of highest activation: where a unit was built to look, they are found."""

import pytest
import torch
from torch import nn

from lightning_saturation import strongest_patches


def edges():
    """Two units of a 3×3 convolution, for a bright pixel in the middle and for it and its left one, then a 2×2 sum."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.ReLU(), nn.Conv2d(2, 1, 2, bias=False), nn.Flatten())
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].weight[0, 0, 1, 1] = 1
        model[0].weight[1, 0, 1, :2] = 1
        model[2].weight.fill_(1)
    return model.train()


def images():
    """Eight dark images, in each of which one pixel is brighter than in the one before."""
    data = torch.zeros(8, 1, 7, 9)
    for index in range(8):
        data[index, 0, 1 + index % 3, 2 + index % 5] = 1 + index
    return data


@pytest.mark.parametrize("progress", [True, False])
def test_a_bar_is_drawn_where_it_is_asked_for(capsys, progress):
    strongest_patches(edges(), [images()], layer="0", units=[0], progress=progress)
    assert ("patches" in capsys.readouterr().err) == progress


@pytest.mark.parametrize("batch", [8, 3, 1])
def test_the_brightest_pixels_are_found(batch):
    model, data = edges(), images()
    found = strongest_patches(model, data.split(batch), layer="0", units=[1, 0], count=3, progress=False)
    assert (found.layer, found.units) == ("0", (1, 0))
    for unit, width in ((0, 2), (1, 1)):
        patches = found.patches[unit]
        assert [(patch.value, patch.sample) for patch in patches] == [(8, 7), (7, 6), (6, 5)]
        for patch in patches:
            assert patch.image.shape == (1, 1, width)
            assert float(patch.image.max()) == patch.value
            own = data[patch.sample, :, patch.top : patch.top + 1, patch.left : patch.left + width]
            assert torch.equal(patch.image, own)
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_part_is_all_that_a_deeper_unit_depends_on():
    model = edges()
    found = strongest_patches(model, [images() + 1], layer="2", units=[0], count=1, progress=False).patches[0][0]
    # Of 4×4 pixels under 2×2 places of 3×3 the rim is not used, but for a column; the columns count 1, 3 and 2 times.
    assert found.image.shape == (1, 2, 3)
    assert found.value == pytest.approx(2 * (1 + 3 + 2) + 3 * 8, abs=1e-4)
    assert float(found.image[0, :, 1].max()) == 9


def test_a_unit_that_never_answers_is_shown_the_whole_image_and_rows_of_linear_layers_have_one_place():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(70, 3))
    with torch.no_grad():
        model[3].weight.zero_()
    found = strongest_patches(model, [(images(), torch.zeros(8))], layer="3", units=[2], progress=False)
    assert [patch.image.shape for patch in found.patches[0]] == [(1, 7, 9)] * 8


class Blind(nn.Module):
    """Answers the same whatever it is shown."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(1, 2, 3)

    def forward(self, x):
        return self.layer(torch.ones_like(x))


def test_a_unit_that_sees_nothing_is_shown_the_whole_image():
    found = strongest_patches(Blind(), [images()], layer="layer", units=[0], count=2, progress=False)
    assert [patch.image.shape for patch in found.patches[0]] == [(1, 7, 9)] * 2


def test_the_picture_has_a_pane_for_each_patch_of_both_sides():
    found = strongest_patches(edges(), [images()], layer="0", units=[0, 1], count=4, progress=False)
    panes = [axes for axes in found.plot(found).axes if axes.get_images()]
    assert len(panes) == 2 * 2 * 4
    assert len([axes for axes in found.plot().axes if axes.get_images()]) == 8


def test_bad_input():
    ask = {"layer": "0", "units": [0], "progress": False}
    with pytest.raises(ValueError, match=r"`units` from 0 to 1 in '0', got \[2\]"):
        strongest_patches(edges(), [images()], layer="0", units=[1, 2], progress=False)
    with pytest.raises(ValueError, match="batches of images"):
        strongest_patches(edges(), [torch.zeros(3, 4)], **ask)
    with pytest.raises(ValueError, match="at least one image"):
        strongest_patches(edges(), [], **ask)
    with pytest.raises(ValueError, match="the name of one layer, got '\\*'"):
        strongest_patches(edges(), [images()], layer="*", units=[0], progress=False)
    with pytest.raises(ValueError, match="`count` of at least 1"):
        strongest_patches(edges(), [images()], count=0, **ask)
