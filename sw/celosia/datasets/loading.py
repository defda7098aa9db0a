"""Finding out which kind of data set a path is."""

from __future__ import annotations

from pathlib import Path

from celosia.datasets.dataset import Dataset, DatasetError
from celosia.datasets.fashion_mnist import load_fashion_mnist
from celosia.datasets.kinds import LOADERS

__all__ = ["load_dataset"]

_PACKED = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".7z", ".rar")


def load_dataset(source: str | Path) -> Dataset:
    """Return the data set that a name or path stands for.

    Parameters
    ----------
    source
        "fashion-mnist", which is looked for as `celosia.datasets.load_fashion_mnist` does; or the
        path of a folder or file. What it holds is told by its content.

    Raises
    ------
    FileNotFoundError
        There is no such path, or a file of the set is missing.
    DatasetError
        Nothing that is known, or damaged; the message lists what would be.
    """
    if str(source) == "fashion-mnist":
        return Dataset("fashion-mnist", *load_fashion_mnist("train"), *load_fashion_mnist("test"))
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"{source}: no such file or folder; a data set is "
                                f"'fashion-mnist' or {_known()}")
    for kind in LOADERS:
        if kind.recognises(path):
            return kind.load(path)
    if path.name.lower().endswith(_PACKED):
        raise DatasetError(f"{path}: a packed archive; unpack it and give the folder")
    raise DatasetError(f"{path}: not a known data set; it must be {_known()}")


def _known() -> str:
    return "; or ".join(kind.files for kind in LOADERS)
