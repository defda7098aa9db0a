"""Program files read back: a file is a program if it is, section for section, what this release
writes of what it makes of the network in it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import ValidationError

from celosia_spec import container
from celosia_spec.errors import CelosiaError, quoted

Sections = tuple[dict[str, Any], dict[str, np.ndarray]]
"""Manifest and arrays of a file."""

T = TypeVar("T")

_WORDS = 300
"""Longest reason in a refusal: a file may hold names of any length."""


def read_back(path: str | Path, version: int, made: Callable[..., T],
              sections: Callable[[T], Sections]) -> T:
    """Return what is ``made`` of a file's manifest and arrays, if its ``sections`` are the file's.

    made : may raise what pydantic does, and where an entry or a section is missing KeyError, where
    one is wrong ValueError or CelosiaError.

    CelosiaError where the file is foreign or damaged, or is not what this release makes of it;
    OSError where it cannot be read.
    """
    manifest, arrays = container.read(path, version)
    try:
        found = made(manifest, arrays)
        problem = _difference((manifest, arrays), sections(found))
    except ValidationError as wrong:
        first = wrong.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        problem = f"manifest entry {where or 'as a whole'}: {first['msg']}"
    except KeyError as missing:
        problem = f"{missing} is missing"
    except (CelosiaError, ValueError) as wrong:
        problem = str(wrong)
    if problem:
        raise CelosiaError(f"{path}: not a valid program, {quoted(problem, _WORDS)}; compile the "
                           f"model again")
    return found


def _difference(file: Sections, wanted: Sections) -> str:
    """Return what a file has that it should not have, or in another order; empty where nothing."""
    (manifest, arrays), (entries, known) = file, wanted
    made = "is not what this release makes of the network in it"
    for name in sorted(entries.keys() | manifest.keys()):
        if (name not in manifest or name not in entries
                or container.to_json(manifest[name]) != container.to_json(entries[name])):
            return f"manifest entry {name!r} {made}"
    if list(arrays) != list(known):
        return "its sections are not those of its network, in their order"
    for name, array in arrays.items():
        if array.dtype != known[name].dtype or not np.array_equal(array, known[name]):
            return f"section {name!r} {made}"
    return ""
