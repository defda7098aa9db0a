"""MNIST's files, and what is made of them: pixels, labels, and the accuracy of answers."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from celosia import datasets
from celosia.datasets import (
    DatasetError,
    as_inputs,
    fashion_mnist,
    input_rule,
    load_fashion_mnist,
    preprocess,
    read_idx,
    shipped_test_images,
)
from celosia.evaluate import accuracy
from tolerance import rounding
from written_data import idx, random_set, write_split


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
