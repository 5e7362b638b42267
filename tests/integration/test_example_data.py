"""Images of the examples: every layout of files gives the same tensors, and each mistake says what to do."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from examples.common import images
from examples.common.files import decode

CIFAR = Path(__file__).resolve().parents[3] / "shared" / "data" / "cifar10"


def _write(folder: Path, *, classes=("cat", "dog"), count=5, size=(32, 32), suffix="png", start=0) -> dict:
    rng = np.random.default_rng(start)
    pixels = {}
    for name in classes:
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels[name, i] = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(pixels[name, i]).save(folder / name / f"{i}.{suffix}")
    return pixels


def _zipped(folder: Path, archive: Path, prefix: str = "") -> Path:
    with zipfile.ZipFile(archive, "w") as out:
        for file in sorted(folder.rglob("*.*")):
            out.write(file, prefix + file.relative_to(folder).as_posix())
    return archive


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    data, digits = images(), load_digits()
    both = torch.cat([data.train_pixels, data.test_pixels])
    assert data.shape == (1, 8, 8)
    assert data.classes == tuple("0123456789")
    assert len(both) == len(digits.images) == 1797
    # each image once: the same multiset of images with their labels
    ours = {(tuple((image.flatten() // 15).tolist()), int(label)) for image, label in _labelled(data)}
    theirs = {
        (tuple(image.astype(int).ravel()), int(label))
        for image, label in zip(digits.images, digits.target, strict=True)
    }
    assert ours == theirs


def _labelled(data):
    yield from zip(data.train_pixels, data.train_labels, strict=True)
    yield from zip(data.test_pixels, data.test_labels, strict=True)


@pytest.mark.parametrize("layout", ["folder", "zip", "zip with a top folder"])
def test_files_keep_pixels_and_labels(tmp_path, layout):
    folder = tmp_path / "animals"
    written = _write(folder)
    path = {
        "folder": lambda: folder,
        "zip": lambda: _zipped(folder, tmp_path / "a.zip"),
        "zip with a top folder": lambda: _zipped(folder, tmp_path / "b.zip", "animals/"),
    }[layout]()
    data = images(path)
    assert data.classes == ("cat", "dog")
    expected = {(array.tobytes(), name) for (name, _), array in written.items()}
    found = {(image.permute(1, 2, 0).contiguous().numpy().tobytes(), data.classes[y]) for image, y in _labelled(data)}
    assert found == expected
    assert data.test_labels.bincount().tolist() == [1, 1]


@pytest.mark.parametrize("zipped", [False, True])
def test_a_given_split_is_kept(tmp_path, zipped):
    train = _write(tmp_path / "train", count=4, start=1)
    test = _write(tmp_path / "test", count=3, start=2)
    if zipped:
        archives = tmp_path / "archives"
        archives.mkdir()
        for part in ("train", "test"):
            _zipped(tmp_path / part, archives / f"{part}.zip")
    data = images(archives if zipped else tmp_path)
    assert len(data.train_labels) == len(train)
    assert len(data.test_labels) == len(test)
    bytes_of = {array.tobytes() for array in test.values()}
    assert {image.permute(1, 2, 0).contiguous().numpy().tobytes() for image in data.test_pixels} == bytes_of


def test_split_and_limit_are_even_and_repeatable():
    data = images(limit=200, test_share=0.25)
    assert data.train_labels.bincount().tolist() == [15] * 10
    assert data.test_labels.bincount().tolist() == [5] * 10
    assert torch.equal(data.test_pixels, images(limit=200, test_share=0.25).test_pixels)
    assert not torch.equal(data.test_pixels, images(limit=200, test_share=0.25, seed=1).test_pixels)


def test_no_draw_from_the_global_generator():
    before = torch.get_rng_state()
    images(limit=100)
    assert torch.equal(before, torch.get_rng_state())


def test_loaders_scale_by_the_training_images_and_cover_them():
    data = images(limit=400)
    batches = list(data.train_loader(64, seed=3))
    stacked = torch.cat([x for x, _ in batches])
    expected = data.train_pixels.double().numpy()
    assert stacked.shape == data.train_pixels.shape
    assert stacked.dtype == torch.float32
    np.testing.assert_allclose(stacked.mean(), 0, atol=1e-5)
    np.testing.assert_allclose(stacked.std(correction=0), 1, atol=1e-5)
    x, y = next(iter(data.test_loader(16)))
    reference = (data.test_pixels[:16].double().numpy() - expected.mean()) / expected.std()
    np.testing.assert_allclose(x, reference, atol=1e-5)
    assert torch.equal(y, data.test_labels[:16])
    again = torch.cat([y for _, y in data.train_loader(64, seed=3)])
    assert torch.equal(torch.cat([y for _, y in batches]), again)
    assert sorted(again.tolist()) == sorted(data.train_labels.tolist())


def test_photographs_of_any_shape_come_as_squares(tmp_path):
    _write(tmp_path, size=(90, 60), suffix="jpg")
    assert images(tmp_path).shape == (3, 32, 32)
    assert images(tmp_path, size=16).shape == (3, 16, 16)
    assert images(size=16).shape == (1, 16, 16)


def test_decoding_happens_once(tmp_path):
    _write(tmp_path)
    images(tmp_path)
    hits = decode.cache_info().hits
    images(tmp_path, seed=5)
    assert decode.cache_info().hits == hits + 1


def test_chosen_classes(tmp_path):
    _write(tmp_path, classes=("bird", "cat", "dog"))
    assert images(tmp_path, classes=("dog", "bird")).classes == ("dog", "bird")
    with pytest.raises(ValueError, match=r"Expected `classes` among \['bird', 'cat', 'dog'\], got \['cow'\]"):
        images(tmp_path, classes=("dog", "cow"))


def test_what_is_not_there_or_no_images(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"found nothing at .*nowhere"):
        images(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(ValueError, match="found no image in"):
        images(tmp_path)
    with pytest.raises(ValueError, match=r"folder or a zip file, got .*notes\.txt"):
        images(tmp_path / "notes.txt")


def test_one_class_loose_files_and_a_broken_file(tmp_path):
    _write(tmp_path / "one", classes=("cat",))
    with pytest.raises(ValueError, match=r"at least two classes .*got \['cat'\]"):
        images(tmp_path / "one")
    _write(tmp_path / "loose")
    Image.new("RGB", (32, 32)).save(tmp_path / "loose" / "stray.png")
    with pytest.raises(ValueError, match=r"in the folder of its class, found stray\.png"):
        images(tmp_path / "loose")
    _write(tmp_path / "broken")
    (tmp_path / "broken" / "cat" / "0.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"could not read .*0\.png"):
        images(tmp_path / "broken")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test_share": 1.0}, r"`test_share` in \(0, 1\), got 1.0"),
        ({"limit": 0}, "`limit` of at least 4 images, got 0"),
        ({"size": 2}, "`size` of at least 4 pixels, got 2"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        images(**options)


@pytest.mark.skipif(not CIFAR.exists(), reason="../shared/data/cifar10 is not there")
def test_real_photographs_keep_their_split():
    data = images(CIFAR, limit=500)
    assert (len(data.train_labels), len(data.test_labels)) == (400, 100)
    assert data.shape == (3, 32, 32)
    assert data.classes[:2] == ("airplane", "automobile")
    with zipfile.ZipFile(CIFAR / "test.zip") as archive, archive.open("airplane/0000.jpg") as file:
        first = np.asarray(Image.open(file).convert("RGB"))
    assert np.array_equal(data.test_pixels[0].permute(1, 2, 0).numpy(), first)
