"""The kinds of data sets: what each must have, and a list that they enter themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, TypeVar

from celosia.datasets.dataset import Dataset

__all__ = ["LOADERS", "Loader", "loader"]


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


LOADERS: list[Loader] = []

_Kind = TypeVar("_Kind", bound=Loader)


def loader(kind: type[_Kind]) -> type[_Kind]:
    """Make a kind of data set known; a decorator of its class."""
    LOADERS.append(kind())
    return kind
