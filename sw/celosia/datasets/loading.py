"""The kinds of data sets, and finding out which one a path is."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, TypeVar

from celosia.datasets.dataset import Dataset, DatasetError

__all__ = ["Loader", "load_dataset", "loader"]


class Loader(Protocol):
    """What a kind of data set must have; a class with static methods will do.

    files      : what the user must give, for messages.
    recognises : whether a path that exists holds this kind, judged by names and first bytes. If
                 it says yes, no other kind is asked.
    load       : returns the data set, or raises DatasetError naming the file and the way out.
    """

    files: str

    def recognises(self, path: Path) -> bool: ...

    def load(self, path: Path) -> Dataset: ...


_LOADERS: list[Loader] = []
_PACKED = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".7z", ".rar")

_Kind = TypeVar("_Kind", bound=Loader)


def loader(kind: type[_Kind]) -> type[_Kind]:
    """Make a kind of data set known; a decorator of its class."""
    _LOADERS.append(kind())
    return kind


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
        from celosia.datasets.fashion_mnist import load_fashion_mnist

        return Dataset("fashion-mnist", *load_fashion_mnist("train"), *load_fashion_mnist("test"))
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"{source}: no such file or folder; a data set is "
                                f"'fashion-mnist' or {_known()}")
    for kind in _LOADERS:
        if kind.recognises(path):
            return kind.load(path)
    if path.name.lower().endswith(_PACKED):
        raise DatasetError(f"{path}: a packed archive; unpack it and give the folder")
    raise DatasetError(f"{path}: not a known data set; it must be {_known()}")


def _known() -> str:
    return "; or ".join(kind.files for kind in _LOADERS)
