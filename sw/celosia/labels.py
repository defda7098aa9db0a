"""Files of class names, and of the classes that inputs truly have."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from celosia.datasets.dataset import as_labels
from celosia.reading import FileError, load_npy
from celosia_spec.errors import quoted
from celosia_spec.files import read_file
from celosia_spec.preprocessing import LABEL_LENGTH, LABELS_MAX

__all__ = ["check_classes", "read_labels", "read_truth"]

_SHOWN = 5          # names of classes that a message lists
_LABELS_BYTES = LABELS_MAX * (4 * LABEL_LENGTH + 2)
_TRUTH_BYTES = 64 << 20


def read_labels(path: Path) -> tuple[str, ...]:
    """Return the class names of a text file in UTF-8, one a line; FileError otherwise."""
    names = _lines(path, _LABELS_BYTES)
    if not names:
        raise FileError(f"{path}: no class names in it; write one on each line")
    return tuple(names)


def read_truth(path: Path, labels: Sequence[str]) -> np.ndarray:
    """Return the class of each input, int64 (N,).

    path   : a ``.npy`` file of whole numbers (N,), or a text file with a number or a name a line.
    labels : names of the classes.

    FileError where a line is neither a class number nor a name.
    """
    if path.suffix.lower() == ".npy":
        return as_labels(path, load_npy(path))
    numbers = {name: number for number, name in enumerate(labels)}
    found = []
    for at, line in enumerate(_lines(path, _TRUTH_BYTES), 1):
        number = numbers.get(line)
        if number is None:
            if not (line.isascii() and line.isdigit() and len(line) < 8):
                names = f" nor one of the {len(labels)} class names" if labels else ""
                raise FileError(f"{path}: line {at}, {line[:40]!r}, is no class number{names}; "
                                f"write the class of one input on each line")
            number = int(line)
        found.append(number)
    return as_labels(path, np.array(found, np.int64))


def check_classes(path: Path, classes: Sequence[str], labels: Sequence[str]) -> None:
    """FileError where inputs count classes that have other names, or names in another order, than
    a program's have.

    path    : of the inputs.   classes : as they name them, in their order; () where they do not.
    labels  : as the program does; () likewise.
    """
    if not classes or not labels or tuple(classes) == tuple(labels):
        return
    truth = "run --truth FILE, with the program's class of each input on a line"
    if sorted(classes) == sorted(labels):
        kind, way = "in another order", truth
    else:
        kind, way = "which are others", truth
        if len(classes) == len(labels):
            way = (f"compile or run --labels FILE, with the names as its folders are called, where "
                   f"training had these in this order, else {truth}")
    raise FileError(f"{path}: its classes are {_few(classes)}, and the program's {_few(labels)}, "
                    f"{kind}; give {way}")


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return quoted(", ".join(names[:_SHOWN])) + more


def _lines(path: Path, limit: int) -> list[str]:
    """Return the lines of a text file without spaces around them; those at the end may be empty."""
    content = read_file(path, limit)
    try:
        lines = content.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError:
        raise FileError(f"{path}: not a text in UTF-8; write one name or number on each line"
                        ) from None
    lines = [line.strip() for line in lines]
    while lines and not lines[-1]:
        lines.pop()
    if "" in lines:
        raise FileError(f"{path}: line {lines.index('') + 1} is empty; write one name or number "
                        f"on each line")
    return lines
