"""Data sets in each format that is read, and what is refused of it."""

from __future__ import annotations

import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from celosia import datasets
from celosia.datasets import (
    Dataset,
    DatasetError,
    load_dataset,
)
from written_data import random_set, write_split


def write_idx(folder: Path, arrays: tuple[np.ndarray, ...]) -> None:
    write_split(folder, *arrays[:2], stem="train")
    write_split(folder, *arrays[2:], stem="t10k")


def write_cifar(folder: Path, arrays: tuple[np.ndarray, ...]) -> None:
    """Five training batches of unequal length and the test batch."""
    folder.mkdir(exist_ok=True)
    records = [np.concatenate([labels[:, None], images.reshape(len(images), -1)], 1)
               for images, labels in (arrays[:2], arrays[2:])]
    for number, part in enumerate(np.array_split(records[0], 5), 1):
        (folder / f"data_batch_{number}.bin").write_bytes(part.tobytes())
    (folder / "test_batch.bin").write_bytes(records[1].tobytes())


def write_archive(path: Path, arrays: tuple[np.ndarray, ...]) -> None:
    names = ("train_images", "train_labels", "test_images", "test_labels")
    np.savez(path, **dict(zip(names, arrays, strict=True)))


def write_pictures(folder: Path, arrays: tuple[np.ndarray, ...]) -> None:
    image = pytest.importorskip("PIL.Image")
    for split, images, labels in (("train", *arrays[:2]), ("test", *arrays[2:])):
        for number, (picture, label) in enumerate(zip(images, labels, strict=True)):
            place = folder / split / f"class{label}"
            place.mkdir(parents=True, exist_ok=True)
            pixels = picture if picture.ndim == 2 else np.moveaxis(picture, 0, -1)
            image.fromarray(pixels).save(place / f"{number:03d}.png")


def same(dataset: Dataset, arrays: tuple[np.ndarray, ...]) -> None:
    found = (dataset.train_images, dataset.train_labels, dataset.test_images, dataset.test_labels)
    for array, wanted in zip(found, arrays, strict=True):
        np.testing.assert_array_equal(array, wanted)
    assert found[1].dtype == found[3].dtype == np.int64


def by_class(arrays: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """Return the arrays in the order of the labels, as folders of classes have them."""
    orders = [np.argsort(labels, kind="stable") for labels in arrays[1::2]]
    return tuple(arrays[at][orders[at // 2]] for at in range(4))


def test_reads_idx_files(tmp_path):
    arrays = random_set((28, 28))
    write_idx(tmp_path, arrays)
    same(load_dataset(tmp_path), arrays)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match="'test' split is not in"):
        load_dataset(tmp_path)


def test_fashion_mnist_by_name(tmp_path, monkeypatch):
    arrays = random_set((28, 28))
    write_idx(tmp_path, arrays)
    monkeypatch.setenv("CELOSIA_FASHION_MNIST", str(tmp_path))
    dataset = load_dataset("fashion-mnist")
    same(dataset, arrays)
    assert dataset.name == "fashion-mnist"


@pytest.mark.parametrize("inner", ["", "cifar-10-batches-bin"])
def test_reads_cifar_batches(tmp_path, inner):
    arrays = random_set()
    write_cifar(tmp_path / inner, arrays)
    dataset = load_dataset(str(tmp_path))
    same(dataset, arrays)
    assert dataset.train_images.dtype == np.uint8
    assert dataset.train_images.flags.c_contiguous
    assert dataset.name == "cifar-10"


def test_damaged_cifar_batches_are_refused(tmp_path):
    write_cifar(tmp_path, random_set())
    batch = tmp_path / "data_batch_3.bin"
    good = batch.read_bytes()
    for raw, message in [
        (good[:-1], f"data_batch_3.bin: {len(good) - 1} bytes are not a whole number of records"),
        (b"", "0 bytes are not a whole number"),
        (b"\x0a" + good[1:], "label 10 is not in 0 to 9"),
    ]:
        batch.write_bytes(raw)
        with pytest.raises(DatasetError, match=message):
            load_dataset(tmp_path)
    batch.unlink()
    with pytest.raises(FileNotFoundError, match=r"data_batch_3.bin: this batch .* is missing"):
        load_dataset(tmp_path)


@pytest.mark.parametrize("inner", ["", "cifar-10-batches-py"])
def test_pickles_are_refused_unread(tmp_path, inner):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "sprung",)

    (tmp_path / inner).mkdir(exist_ok=True)
    (tmp_path / inner / "data_batch_1").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(DatasetError, match=r"is pickled, .* fetch cifar-10-binary.tar.gz"):
        load_dataset(tmp_path)
    np.savez(tmp_path / "trap.npz", train_images=np.array([Trap()]), train_labels=np.zeros(1),
             test_images=np.zeros((1, 2, 2)), test_labels=np.zeros(1))
    with pytest.raises(DatasetError, match="train_images.npy: .*its elements are a pickle"):
        load_dataset(tmp_path / "trap.npz")
    assert not (tmp_path / "sprung").exists()


def test_reads_archives_of_pixels_and_of_numbers(tmp_path):
    arrays = random_set((1, 9, 7))
    write_archive(tmp_path / "small.npz", arrays)
    dataset = load_dataset(tmp_path / "small.npz")
    same(dataset, arrays)
    assert dataset.name == "small"
    assert dataset.test_images.dtype == np.uint8
    numbers = tuple(part.astype(np.float64) / 3 if at % 2 == 0 else part.astype(float)
                    for at, part in enumerate(arrays))
    write_archive(tmp_path / "numbers.npz", numbers)
    dataset = load_dataset(tmp_path / "numbers.npz")
    same(dataset, tuple(part.astype(np.float32) for part in numbers))
    assert dataset.train_images.dtype == np.float32


@pytest.mark.parametrize(("changes", "message"), [
    ({"test_labels": None}, "has no array test_labels; give a .npz file with train_images"),
    ({"train_labels": np.zeros(11)}, r"12 images, so train_labels must be int64 of shape \(12,\)"),
    ({"train_labels": np.full(12, 0.5)}, "train_labels must be whole numbers"),
    ({"train_labels": np.full(12, -1)}, "train_labels has label -1, which is below 0"),
    ({"test_images": np.zeros((4, 5), np.float32)}, "both must be alike"),
    ({"test_images": np.full((4, 3, 8, 8), np.nan, np.float32)}, "test_images has values that"),
    ({"train_images": np.zeros((12, 8, 8, 3), np.uint8)}, r"\(N, 3, 8, 8\); channels last\? im"),
    ({"train_images": np.zeros((12, 8), np.uint8)}, r"must be \(N, H, W\) or \(N, C, H, W\)"),
    ({"train_images": np.zeros(12)}, "must be uint8 pictures or float32"),
    ({"train_images": np.array(["a"] * 12)}, "its elements are <U1.; store them"),
    ({"train_images": np.zeros((0, 3, 8, 8), np.uint8)}, "is empty"),
])  # fmt: skip
def test_archives_that_do_not_fit_are_refused(tmp_path, changes, message):
    arrays = dict(zip(("train_images", "train_labels", "test_images", "test_labels"),
                      random_set((3, 8, 8)), strict=True)) | changes
    path = tmp_path / "x.npz"
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(DatasetError, match=message):
        load_dataset(path)


def test_damaged_archives_are_refused(tmp_path):
    path = tmp_path / "x.npz"
    write_archive(path, random_set((3, 8, 8)))
    raw = bytearray(path.read_bytes())
    raw[400] ^= 0xFF
    path.write_bytes(raw)
    with pytest.raises(DatasetError, match="x.npz: damaged zip archive .Bad CRC-32"):
        load_dataset(path)
    path.write_bytes(raw[:600])
    with pytest.raises(DatasetError, match="not a known data set"):
        load_dataset(path)


@pytest.mark.parametrize("shape", [(3, 8, 6), (8, 6)])
def test_reads_folders_of_pictures(tmp_path, shape):
    arrays = random_set(shape)
    write_pictures(tmp_path, arrays)
    (tmp_path / "train" / ".hidden").mkdir()
    (tmp_path / "train" / "class0" / ".hidden").touch()
    same(load_dataset(tmp_path), by_class(arrays))


def test_one_coloured_picture_makes_all_coloured(tmp_path):
    image = pytest.importorskip("PIL.Image")
    arrays = random_set((8, 6))
    write_pictures(tmp_path, arrays)
    image.fromarray(np.zeros((8, 6, 3), np.uint8)).save(tmp_path / "test" / "class0" / "zz.jpg")
    dataset = load_dataset(tmp_path)
    assert dataset.test_images.shape == (5, 3, 8, 6)
    np.testing.assert_array_equal(dataset.train_images,
                                  np.repeat(by_class(arrays)[0][:, None], 3, 1))


@pytest.mark.parametrize(("damage", "message"), [
    ("truncated", "000.png: not a readable picture"),
    ("other size", "zz.png: 5 x 8 pixels, the first picture has 6 x 8"),
    ("other file", "notes.txt: not a picture; keep only .png, .jpg, .jpeg"),
    ("16 bit", "zz.png: colour mode I;16; convert it"),
    ("no test", "test: no such folder; give a folder with pictures"),
    ("empty test", "test: no pictures in it"),
    ("new class", "class 'class99' has no folder in"),
])  # fmt: skip
def test_damaged_folders_of_pictures_are_refused(tmp_path, damage, message):
    image = pytest.importorskip("PIL.Image")
    write_pictures(tmp_path, random_set((8, 6)))
    first = tmp_path / "train" / "class0" / "000.png"
    if damage == "truncated":
        first.write_bytes(first.read_bytes()[:60])
    elif damage == "other size":
        image.fromarray(np.zeros((8, 5), np.uint8)).save(first.with_name("zz.png"))
    elif damage == "other file":
        first.with_name("notes.txt").touch()
    elif damage == "16 bit":
        image.fromarray(np.zeros((8, 6), np.uint16)).save(first.with_name("zz.png"))
    elif damage == "new class":
        (tmp_path / "test" / "class99").mkdir()
    else:
        shutil.rmtree(tmp_path / "test")
        if damage == "empty test":
            (tmp_path / "test").mkdir()
    with pytest.raises(DatasetError, match=message):
        load_dataset(tmp_path)


def test_pictures_without_pillow_say_what_to_install(tmp_path, monkeypatch):
    write_pictures(tmp_path, random_set((8, 6)))
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(DatasetError, match="pictures need Pillow; install"):
        load_dataset(tmp_path)


def test_what_is_no_data_set_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone: no such file or folder; a data set is"):
        load_dataset(tmp_path / "gone")
    with pytest.raises(DatasetError, match=r"not a known data set; .*npz.*CIFAR-10.*IDX.*pictur"):
        load_dataset(tmp_path)


def test_another_kind_joins_as_a_class(tmp_path, monkeypatch):
    from celosia.datasets import kinds, loading

    known = list(kinds.LOADERS)
    monkeypatch.setattr(kinds, "LOADERS", known)
    monkeypatch.setattr(loading, "LOADERS", known)

    @datasets.loader
    class Raw:
        files = "a .raw file"

        @staticmethod
        def recognises(path: Path) -> bool:
            return path.suffix == ".raw"

        @staticmethod
        def load(path: Path) -> Dataset:
            images = np.fromfile(path, np.uint8).reshape(-1, 2, 2)
            labels = np.zeros(len(images), np.int64)
            return Dataset("raw", images, labels, images, labels)

    (tmp_path / "x.raw").write_bytes(bytes(8))
    assert load_dataset(tmp_path / "x.raw").train_images.shape == (2, 2, 2)
