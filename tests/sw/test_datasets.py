"""Data sets, good and damaged, and the networks' inputs."""

from __future__ import annotations

import gzip
import pickle
import shutil
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from celosia import datasets
from celosia.datasets import (
    Dataset,
    DatasetError,
    as_inputs,
    fashion_mnist,
    input_rule,
    load_dataset,
    load_fashion_mnist,
    preprocess,
    read_idx,
    shipped_test_images,
)
from celosia.evaluate import accuracy
from tolerance import rounding


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()


def write_split(folder: Path, images: np.ndarray, labels: np.ndarray, stem: str = "train") -> None:
    (folder / f"{stem}-images-idx3-ubyte").write_bytes(idx(images))
    (folder / f"{stem}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))


@pytest.fixture
def pictures() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    return rng.integers(0, 256, (7, 28, 28), np.uint8), rng.integers(0, 10, 7).astype(np.uint8)


def test_reads_plain_and_gzipped_files(tmp_path, pictures):
    write_split(tmp_path, *pictures)
    images, labels = load_fashion_mnist("train", root=tmp_path)
    assert images.dtype == np.uint8
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(images, pictures[0])
    np.testing.assert_array_equal(labels, pictures[1])


def test_environment_names_the_folder(tmp_path, pictures, monkeypatch):
    write_split(tmp_path, *pictures, stem="t10k")
    monkeypatch.setenv("CELOSIA_FASHION_MNIST", str(tmp_path))
    assert len(load_fashion_mnist("test")[0]) == 7
    with pytest.raises(FileNotFoundError, match=r"'train' split is not in .*dataset-fashion-mnist"):
        load_fashion_mnist("train")


def test_falls_back_to_the_shipped_test_images_only(tmp_path, monkeypatch):
    monkeypatch.delenv("CELOSIA_FASHION_MNIST", raising=False)
    monkeypatch.setattr(fashion_mnist, "SYSTEM_FOLDER", tmp_path)
    images, labels = load_fashion_mnist("test")
    assert images.shape == (1000, 28, 28)
    assert images.dtype == np.uint8
    assert labels.shape == (1000,)
    assert set(labels) == set(range(10))
    with pytest.raises(FileNotFoundError, match="CELOSIA_FASHION_MNIST or with root="):
        load_fashion_mnist("train")
    with pytest.raises(FileNotFoundError, match="'test' split"):
        load_fashion_mnist("test", root=tmp_path)


def test_shipped_images_are_the_first_of_the_test_split():
    if not (datasets.SYSTEM_FOLDER / "t10k-images-idx3-ubyte.gz").is_file():
        pytest.skip("the full data set is not installed; apt install dataset-fashion-mnist")
    images, labels = load_fashion_mnist("test", root=datasets.SYSTEM_FOLDER)
    shipped_images, shipped_labels = shipped_test_images()
    assert len(images) == 10_000
    np.testing.assert_array_equal(images[:1000], shipped_images)
    np.testing.assert_array_equal(labels[:1000], shipped_labels)


def test_unknown_split_is_refused():
    with pytest.raises(ValueError, match="'train', 'test', not 'valid'"):
        load_fashion_mnist("valid")


GOOD = idx(np.arange(12, dtype=np.uint8).reshape(3, 2, 2))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (GOOD[:-1], "needs 12 bytes of data, the file has 11"),
        (GOOD + b"\0", "needs 12 bytes of data, the file has 13"),
        (b"\x89PNG" + GOOD, "not an IDX file"),
        (b"", "not an IDX file"),
        (b"\0\0\x0d" + GOOD[3:], "element type 0x0d instead of 0x08"),
        (GOOD[:10], "header of 3 dimensions is incomplete"),
        (b"\0\0\x08\0", "header of 0 dimensions is incomplete"),
        (bytes([0, 0, 8, 2]) + b"\xff" * 8, r"needs 18446744065119617025 bytes"),
        (gzip.compress(GOOD, mtime=0)[:-9], "damaged gzip stream"),
        (gzip.compress(GOOD, mtime=0)[:12] + b"\xff" * 20, "damaged gzip stream"),
    ],
)
def test_damaged_files_are_refused(tmp_path, raw, message):
    path = tmp_path / "broken-idx3-ubyte"
    path.write_bytes(raw)
    with pytest.raises(DatasetError, match=message) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)


def test_read_idx_reads_what_was_written(tmp_path):
    for raw in (GOOD, gzip.compress(GOOD)):
        (tmp_path / "x").write_bytes(raw)
        np.testing.assert_array_equal(read_idx(tmp_path / "x").ravel(), np.arange(12))


def test_images_and_labels_must_belong_together(tmp_path, pictures):
    images, labels = pictures
    write_split(tmp_path, images, labels[:-1])
    with pytest.raises(DatasetError, match=r"\(6,\) does not fit the 7 images"):
        load_fashion_mnist("train", root=tmp_path)
    write_split(tmp_path, images, labels + np.uint8(9))
    with pytest.raises(DatasetError, match="is not in 0 to 9"):
        load_fashion_mnist("train", root=tmp_path)
    write_split(tmp_path, images[:, 1:], labels)
    with pytest.raises(DatasetError, match=r"instead of \(N, 28, 28\)"):
        load_fashion_mnist("train", root=tmp_path)


def test_preprocess_is_exact_and_documented():
    image = np.arange(784, dtype=np.uint16).reshape(28, 28).astype(np.uint8)
    x = preprocess(image)
    assert x.shape == (1, 1, 28, 28)
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x[0, 0].astype(np.float64) * 256, image)
    assert x.min() == 0
    assert x.max() == 255 / 256
    assert preprocess(np.stack([image] * 3)).shape == (3, 1, 28, 28)


@pytest.mark.parametrize(
    ("images", "error"),
    [
        (np.zeros((28, 28), np.float32), TypeError),
        (np.zeros((2, 27, 28), np.uint8), ValueError),
        (np.zeros((2, 1, 28, 28), np.uint8), ValueError),
    ],
)
def test_preprocess_refuses_other_images(images, error):
    with pytest.raises(error, match="images must"):
        preprocess(images)


def test_accuracy_breaks_ties_towards_the_lowest_index():
    values = np.array([[3, 3, 1], [0, 5, 5], [1, 2, 9]])
    assert accuracy(values, [0, 1, 2]) == 1
    assert accuracy(values, [1, 2, 2]) == pytest.approx(1 / 3)
    assert accuracy(values.reshape(3, 3, 1, 1), np.array([0, 2, 0])) == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("values", "labels", "message"),
    [
        (np.zeros((0, 3)), [], "do not fit"),
        (np.zeros((2, 3)), [1], "do not fit"),
        (np.array([[0.0, np.nan]]), [0], "NaN"),
    ],
)
def test_accuracy_refuses_the_undefined(values, labels, message):
    with pytest.raises(ValueError, match=message):
        accuracy(values, labels)


# Every kind of data set


def random_set(shape: tuple[int, ...] = (3, 32, 32)) -> tuple[np.ndarray, ...]:
    """Return train images and labels (12 of them) and test images and labels (4), uint8."""
    rng = np.random.default_rng(8)
    return tuple(part for count in (12, 4) for part in (
        rng.integers(0, 256, (count, *shape), np.uint8), np.arange(count, dtype=np.uint8) % 10))


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
    ({"train_images": np.zeros((12, 8, 8, 3), np.uint8)}, "channels last; store it as"),
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


# Inputs


def test_inputs_are_what_the_rule_says():
    grey, colour = random_set((28, 28))[0], random_set()[0]
    np.testing.assert_array_equal(as_inputs(grey), preprocess(grey))
    assert as_inputs(colour).shape == (12, 3, 32, 32)
    np.testing.assert_array_equal(as_inputs(colour) * 256, colour)
    assert input_rule(colour) == {"inputs": "pixel / 256"}
    mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    wanted = colour / 255 - np.array(mean)[:, None, None]
    wanted /= np.array(deviation)[:, None, None]
    found = as_inputs(colour, mean, deviation)
    assert found.dtype == np.float32
    # Divided, subtracted and divided again, of numbers up to 1 over the deviation.
    once = 3 * rounding(1, np.float32)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=once / min(deviation))
    assert input_rule(colour, mean, deviation) == {
        "inputs": "(pixel / 255 - mean) / deviation", "mean": list(mean),
        "deviation": list(deviation)}
    np.testing.assert_allclose(as_inputs(grey, 0.5, 0.25)[:, 0], grey / 255 * 4 - 2, rtol=0,
                               atol=once / 0.25)


def test_numbers_stay_unless_normalised():
    values = np.random.default_rng(1).normal(size=(4, 5)).astype(np.float32)
    np.testing.assert_array_equal(as_inputs(values), values)
    assert input_rule(values) == {"inputs": "as given"}
    np.testing.assert_allclose(as_inputs(values, 1, 2), (values - 1) / 2, rtol=0,
                               atol=rounding(2, np.float32) * (1 + float(np.abs(values).max())) / 2)
    assert input_rule(values, 1, 2)["inputs"] == "(value - mean) / deviation"


@pytest.mark.parametrize(("mean", "deviation", "message"), [
    (0.5, None, "give both"),
    (None, 0.5, "give both"),
    ((0.5, 0.5), 0.2, "mean must be one finite number or 3"),
    (0.5, (0.2, 0.2), "deviation must be one finite number or 3"),
    (0.5, 0.0, "deviation must be above 0"),
    (float("nan"), 1, "mean must be one finite"),
])  # fmt: skip
def test_normalisation_that_means_nothing_is_refused(mean, deviation, message):
    with pytest.raises(ValueError, match=message):
        as_inputs(random_set()[0], mean, deviation)


def test_inputs_refuse_other_types_and_shapes():
    with pytest.raises(TypeError, match="must be uint8 or float32, not float64"):
        as_inputs(np.zeros((2, 3, 4, 4)))
    with pytest.raises(ValueError, match=r"\(N, H, W\) or \(N, C, H, W\), not \(4, 4\)"):
        as_inputs(np.zeros((4, 4), np.uint8))
