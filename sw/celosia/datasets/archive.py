"""A data set as four arrays in one .npz file."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from celosia.datasets.dataset import Dataset, DatasetError, as_labels, damage
from celosia.datasets.kinds import loader
from celosia.reading import MAX_BYTES, ZipReader
from celosia_spec.files import open_file
from celosia_spec.inputs import wrong_shape

__all__ = ["Archive"]

_ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


@loader
class Archive:
    """A file that `numpy.savez` wrote, with the four arrays of a `Dataset` by their names.

    Images uint8 stay; of any other number type they become float32. Labels become int64.
    """

    files = f"a .npz file with {', '.join(_ARRAYS[:-1])} and {_ARRAYS[-1]}"

    @staticmethod
    def recognises(path: Path) -> bool:
        """Return whether the file is a zip archive, as .npz files are."""
        return path.is_file() and zipfile.is_zipfile(path)

    @classmethod
    def load(cls, path: Path) -> Dataset:
        """Return the data set; nothing is unpickled."""
        with damage(), open_file(path, MAX_BYTES) as stream:
            archive = ZipReader(stream, path, packed=True)
            missing = [name for name in _ARRAYS if f"{name}.npy" not in archive.names]
            if missing:
                raise DatasetError(f"{path}: has no array {', '.join(missing)}; give "
                                   f"{cls.files}")
            arrays = [archive.array(f"{name}.npy") for name in _ARRAYS]
        return Dataset(path.stem, *(
            (_images if name.endswith("images") else as_labels)(f"{path}: {name}", array)
            for name, array in zip(_ARRAYS, arrays, strict=True)))


def _images(where: str, array: np.ndarray) -> np.ndarray:
    """Return images as uint8 or float32."""
    if array.dtype != np.uint8:
        with np.errstate(over="ignore"):        # what it makes infinite, Dataset refuses
            return array.astype(np.float32)
    if array.ndim == 4 and array.shape[-1] in (1, 3) and array.shape[1] not in (1, 3):
        _, height, width, channels = array.shape
        wrong = wrong_shape(array.shape, (channels, height, width), "images", "pictures are")
        raise DatasetError(f"{where}: {wrong}")
    return array
