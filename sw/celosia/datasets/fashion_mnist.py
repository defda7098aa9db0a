"""Fashion-MNIST: reading the standard IDX files, and the 1,000 test images that are shipped.

Xiao, Rasul, Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine learning
algorithms", arXiv 1708.07747, 2017. 60,000 training and 10,000 test images, 28 x 28 grey levels,
ten classes. Debian's package ``dataset-fashion-mnist`` installs the files.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np

from celosia.datasets.dataset import Dataset, DatasetError, damage
from celosia.datasets.kinds import loader
from celosia.reading import MAX_BYTES, MAX_DIMENSIONS, gunzip
from celosia_spec.errors import ArgumentError
from celosia_spec.files import read_file
from celosia_spec.preprocessing import of_pixels

__all__ = [
    "CLASSES",
    "FashionMnist",
    "load_fashion_mnist",
    "preprocess",
    "read_idx",
    "shipped_test_images",
]

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
"""The names of labels 0 to 9."""

ENVIRONMENT = "CELOSIA_FASHION_MNIST"
"""The environment variable that names the folder of the IDX files."""

SYSTEM_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts the IDX files."""

_SHIPPED = Path(__file__).resolve().parents[1] / "data" / "fashion_mnist_test1000.npz"
_STEMS = {"train": "train", "test": "t10k"}
_KINDS = ("images-idx3-ubyte", "labels-idx1-ubyte")
_UNSIGNED_BYTE = 0x08
_WAY_OUT = (
    "install Debian's package dataset-fashion-mnist, or fetch the four files of "
    "https://github.com/zalandoresearch/fashion-mnist and name their folder in "
    f"{ENVIRONMENT} or with root="
)


@loader
class FashionMnist:
    """The four IDX files of Fashion-MNIST, or of MNIST, which has the same names and shapes."""

    files = "a folder with Fashion-MNIST's IDX files, train-images-idx3-ubyte.gz and so on"

    @staticmethod
    def recognises(path: Path) -> bool:
        """Return whether there is one of the four files in a folder."""
        return path.is_dir() and any(
            (path / f"{stem}-{kind}{end}").is_file()
            for stem in _STEMS.values() for kind in _KINDS for end in ("", ".gz")
        )

    @staticmethod
    def load(path: Path) -> Dataset:
        """Return both splits; raise FileNotFoundError or DatasetError."""
        train, test = (load_fashion_mnist(split, root=path) for split in _STEMS)
        return Dataset(path.name, *train, *test)


def preprocess(images: np.ndarray) -> np.ndarray:
    """Turn grey levels into network inputs; the only step between a picture and the network.

    ``x = pixel / 256``, so an empty pixel is exactly 0 and the brightest is 255/256. No mean is
    subtracted and nothing is divided by a standard deviation: the first layer has learned that.
    The divisor is a power of two so that inputs stay below 1 and an 8-bit mantissa block of a
    picture gets all of its seven magnitude bits; with 255 a single white pixel would take one.

    Parameters
    ----------
    images
        uint8, (28, 28) or (N, 28, 28).

    Returns
    -------
    float32 (N, 1, 28, 28), values in [0, 255/256], C-contiguous. One image gives N = 1.

    Raises
    ------
    TypeError
        The array is not uint8 (already scaled images would be scaled twice).
    ArgumentError
        The last two axes are not 28 x 28.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8:
        raise TypeError(f"images must be uint8 grey levels 0 to 255, not {images.dtype}")
    if images.ndim not in (2, 3) or images.shape[-2:] != (28, 28):
        raise ArgumentError(f"images must have shape (28, 28) or (N, 28, 28), not {images.shape}")
    return of_pixels().inputs(images.reshape(-1, 1, 28, 28))


def read_idx(path: str | Path) -> np.ndarray:
    """Read an IDX file of unsigned bytes, plain or gzipped (told by its content).

    Returns
    -------
    uint8 array of the shape that the file's header gives, writable.

    Raises
    ------
    FileNotFoundError
        No such file.
    DatasetError
        Wrong magic number, another element type, too few or too many bytes, a damaged gzip
        stream, more than `celosia.reading.MAX_BYTES` packed or unpacked, or not a regular file.
        The message names the file and what was found.
    """
    path = Path(path)
    with damage():
        raw = read_file(path, MAX_BYTES)
        if raw[:2] == b"\x1f\x8b":
            raw = gunzip(raw, path)
    if len(raw) < 4 or raw[:2] != b"\0\0":
        raise DatasetError(f"{path}: not an IDX file, it starts with {raw[:4].hex(' ')!r}")
    if raw[2] != _UNSIGNED_BYTE:
        raise DatasetError(f"{path}: IDX element type {raw[2]:#04x} instead of 0x08, unsigned byte")
    dimensions = raw[3]
    start = 4 + 4 * dimensions
    if not 1 <= dimensions <= MAX_DIMENSIONS or len(raw) < start:
        raise DatasetError(f"{path}: IDX header of {dimensions} dimensions is incomplete, or not "
                           f"of 1 to {MAX_DIMENSIONS}")
    shape = tuple(int.from_bytes(raw[at : at + 4], "big") for at in range(4, start, 4))
    expected = math.prod(shape)
    if len(raw) - start != expected:
        raise DatasetError(
            f"{path}: shape {shape} needs {expected} bytes of data, the file has "
            f"{len(raw) - start}; fetch it again"
        )
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape).copy()


def load_fashion_mnist(
    split: str, *, root: str | Path | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the images and labels of a split.

    Looked for in `root`, and only there, if it is given; else in the folder that the environment
    variable ``CELOSIA_FASHION_MNIST`` names, and only there, if it is set; else in
    /usr/share/datasets/fashion-mnist; else, for "test", the first 1,000 images, which are
    shipped. The number of images tells which it was.

    Parameters
    ----------
    split
        "train" (60,000 images) or "test" (10,000, or the shipped 1,000).
    root
        Folder of the IDX files, gzipped (``.gz``) or plain, under their standard names.

    Returns
    -------
    images uint8 (N, 28, 28), labels int64 (N,), 0 to 9.

    Raises
    ------
    ArgumentError
        Unknown split.
    FileNotFoundError
        The split is not there; the message says how to get it.
    DatasetError
        A file is damaged, or images and labels do not belong together.
    """
    if split not in _STEMS:
        raise ArgumentError(f"split must be one of {', '.join(map(repr, _STEMS))}, not {split!r}")
    chosen = root or os.environ.get(ENVIRONMENT)
    folder = Path(chosen) if chosen else SYSTEM_FOLDER
    files = _find(folder, split)
    if files is not None:
        return _read_pair(*files)
    if chosen is None and split == "test":
        return shipped_test_images()
    raise FileNotFoundError(
        f"Fashion-MNIST's {split!r} split is not in {folder}; only the first 1,000 test images "
        f"are shipped. To get it, {_WAY_OUT}"
    )


def shipped_test_images() -> tuple[np.ndarray, np.ndarray]:
    """Return the first 1,000 test images, uint8 (1000, 28, 28), and labels, int64 (1000,).

    They come with the package (MIT licence, see data/LICENSE-fashion-mnist.txt) and are equal to
    the first 1,000 of the full test split.
    """
    with np.load(_SHIPPED, allow_pickle=False) as archive:
        return archive["images"], archive["labels"].astype(np.int64)


def _find(folder: Path, split: str) -> tuple[Path, Path] | None:
    """Return the image and label files of a split, or None if either is not there."""
    found = []
    for kind in _KINDS:
        plain = folder / f"{_STEMS[split]}-{kind}"
        candidates = [
            path for path in (plain.with_name(plain.name + ".gz"), plain) if path.is_file()
        ]
        if not candidates:
            return None
        found.append(candidates[0])
    return found[0], found[1]


def _read_pair(image_file: Path, label_file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read and cross-check a split's two files."""
    images, labels = read_idx(image_file), read_idx(label_file)
    if images.ndim != 3 or images.shape[1:] != (28, 28):
        raise DatasetError(f"{image_file}: shape {images.shape} instead of (N, 28, 28)")
    if labels.shape != images.shape[:1]:
        raise DatasetError(
            f"{label_file}: shape {labels.shape} does not fit the {len(images)} images of "
            f"{image_file}"
        )
    if labels.size and labels.max() >= len(CLASSES):
        raise DatasetError(f"{label_file}: label {labels.max()} is not in 0 to 9")
    return images, labels.astype(np.int64)
