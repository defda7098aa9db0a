"""CIFAR-10 in its binary version.

Krizhevsky, "Learning multiple layers of features from tiny images", 2009. 50,000 training and
10,000 test images, 3 x 32 x 32, ten classes, https://www.cs.toronto.edu/~kriz/cifar.html.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from celosia.datasets.dataset import Dataset, DatasetError, damage
from celosia.datasets.kinds import loader
from celosia.reading import MAX_BYTES
from celosia_spec.files import read_file

__all__ = ["Cifar10"]

_TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
_TEST = "test_batch"
_PIXELS = 3 * 32 * 32
_WAY_OUT = "fetch cifar-10-binary.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html"


@loader
class Cifar10:
    """The six binary batches, in a folder or in its folder cifar-10-batches-bin."""

    files = "a folder with CIFAR-10's binary batches, data_batch_1.bin and so on"

    @staticmethod
    def recognises(path: Path) -> bool:
        """Return whether there is one of the six files, or one of the pickled version."""
        return _find(path, "bin", ".bin") is not None or _find(path, "py", "") is not None

    @staticmethod
    def load(path: Path) -> Dataset:
        """Return images uint8 (N, 3, 32, 32) and labels 0 to 9.

        Raises DatasetError for damage and for the Python version, FileNotFoundError for a batch
        that is not there.
        """
        folder = _find(path, "bin", ".bin")
        if folder is None:
            raise DatasetError(f"{path}: CIFAR-10's Python version is pickled, and reading a "
                               f"pickle runs whatever code is in it; {_WAY_OUT}")
        parts = [_read(folder / f"{name}.bin") for name in (*_TRAIN, _TEST)]
        images, labels = (np.concatenate(part) for part in zip(*parts[:-1], strict=True))
        return Dataset("cifar-10", images, labels, *parts[-1])


def _find(path: Path, version: str, suffix: str) -> Path | None:
    """Return the folder of the batches of a version, or None."""
    for folder in (path, path / f"cifar-10-batches-{version}"):
        if any((folder / f"{name}{suffix}").is_file() for name in (*_TRAIN, _TEST)):
            return folder
    return None


def _read(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return a batch's images and labels; a record is a label byte and 3,072 pixels."""
    if not file.is_file():
        raise FileNotFoundError(f"{file}: this batch of CIFAR-10 is missing; {_WAY_OUT}")
    with damage():
        raw = np.frombuffer(read_file(file, MAX_BYTES), np.uint8)
    if raw.size == 0 or raw.size % (1 + _PIXELS):
        raise DatasetError(f"{file}: {raw.size} bytes are not a whole number of records of "
                           f"{1 + _PIXELS} bytes; {_WAY_OUT}")
    records = raw.reshape(-1, 1 + _PIXELS)
    labels = records[:, 0].astype(np.int64)
    if labels.max() > 9:
        raise DatasetError(f"{file}: label {labels.max()} is not in 0 to 9; {_WAY_OUT}")
    return np.ascontiguousarray(records[:, 1:]).reshape(-1, 3, 32, 32), labels
